"""Authentication: signed cookies, invite links, the operator's token, and CSRF tokens of forms."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import asdict, dataclass, replace
from typing import Any

from itsdangerous import BadData, URLSafeSerializer, URLSafeTimedSerializer

from accord.errors import PermissionDenied, Unauthenticated
from accord_console.auth.invites import Invite, Invites

ANNOTATOR_COOKIE = "accord_annotator"
OPERATOR_COOKIE = "accord_operator"
DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class AnnotatorSession:
    """The content of an annotator's cookie. `answered`: in this session; `last`: the feedback that undo retracts."""

    invite_id: str
    session_id: str
    answered: int = 0
    last: str = ""

    def saved(self, feedback_id: str) -> AnnotatorSession:
        """The session after an answer; saving the same answer again changes nothing."""
        return self if feedback_id == self.last else replace(self, answered=self.answered + 1, last=feedback_id)

    def undone(self) -> AnnotatorSession:
        """The session after undo."""
        return replace(self, answered=max(0, self.answered - 1), last="") if self.last else self


class Sessions:
    """Signs and verifies links, cookies and forms. `operator_token` opens the operator's pages."""

    def __init__(self, secret: str, invites: Invites, operator_token: str, session_days: float) -> None:
        self._invites = invites
        self._links = URLSafeSerializer(secret, salt="accord.invite.v1")
        self._cookies = URLSafeTimedSerializer(secret, salt="accord.session.v1")
        self._operators = URLSafeTimedSerializer(secret, salt="accord.operator.v1")
        self._forms = URLSafeSerializer(secret, salt="accord.form.v1")
        self.operator_token = operator_token
        self.max_age = int(session_days * DAY_SECONDS)

    def link_token(self, invite: Invite) -> str:
        """The last part of an invite link."""
        return str(self._links.dumps(invite.invite_id))

    def enter(self, link_token: str) -> AnnotatorSession:
        """A new session for an invite link. PermissionDenied if the link is forged, damaged or revoked."""
        try:
            invite_id = str(self._links.loads(link_token))
        except BadData as error:
            raise PermissionDenied(
                "This invite link is damaged. Copy the whole link, or ask for a new one", reason="BAD_INVITE"
            ) from error
        self._active(invite_id)
        return AnnotatorSession(invite_id, secrets.token_hex(8))

    def annotator(self, cookie: str | None) -> tuple[Invite, AnnotatorSession]:
        """A cookie's invite and session. Unauthenticated without one; PermissionDenied if the invite is revoked."""
        found = AnnotatorSession(**self._read(self._cookies, cookie, "Open your invite link to annotate"))
        return self._active(found.invite_id), found

    def annotator_cookie(self, session: AnnotatorSession) -> str:
        """The session as a signed cookie."""
        return str(self._cookies.dumps(asdict(session)))

    def enter_operator(self, token: str) -> str:
        """A cookie for the operator. PermissionDenied if the token is wrong."""
        if not hmac.compare_digest(token.encode(), self.operator_token.encode()):
            raise PermissionDenied(
                "This operator link belongs to another console. The console prints its link when it starts",
                reason="BAD_TOKEN",
            )
        return str(self._operators.dumps({"session_id": secrets.token_hex(8)}))

    def operator(self, cookie: str | None) -> str:
        """The operator's session id. Unauthenticated if there is none."""
        where = "Open the operator link that the console printed when it started"
        return str(self._read(self._operators, cookie, where)["session_id"])

    def form_token(self, session_id: str) -> str:
        """The CSRF token in every form of a session, so that no other site can send forms for it."""
        return str(self._forms.dumps(session_id))

    def check_form(self, session_id: str, token: str | None) -> None:
        """PermissionDenied, CSRF, for a form that this console did not create for this session."""
        if not token or not hmac.compare_digest(token.encode(), self.form_token(session_id).encode()):
            raise PermissionDenied("This form belongs to another session. Reload the page and try again", reason="CSRF")

    def _active(self, invite_id: str) -> Invite:
        invite = self._invites.active(invite_id)
        if invite is None:
            raise PermissionDenied("This invite was revoked. Ask for a new one", reason="INVITE_REVOKED")
        return invite

    def _read(self, serializer: URLSafeTimedSerializer, cookie: str | None, what_to_do: str) -> dict[str, Any]:
        try:
            return dict(serializer.loads(cookie or "", max_age=self.max_age))
        except BadData as error:
            raise Unauthenticated(what_to_do, reason="NO_SESSION") from error
