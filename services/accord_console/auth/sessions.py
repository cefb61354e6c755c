"""Who is asking: signed cookies, invite links, the operator's token, and the proof that a form is our own (CSRF)."""

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
    """What an annotator's cookie says. `answered`: in this session; `last`: the feedback that undo takes back."""

    invite_id: str
    session_id: str
    answered: int = 0
    last: str = ""

    def saved(self, feedback_id: str) -> AnnotatorSession:
        """The session after an answer; saving the same one again changes nothing."""
        return self if feedback_id == self.last else replace(self, answered=self.answered + 1, last=feedback_id)

    def undone(self) -> AnnotatorSession:
        """The session after undo."""
        return replace(self, answered=max(0, self.answered - 1), last="") if self.last else self


class Sessions:
    """Signs and checks. `operator_token` opens the operator's pages."""

    def __init__(self, secret: str, invites: Invites, operator_token: str, session_days: float) -> None:
        self._invites = invites
        self._links = URLSafeSerializer(secret, salt="accord.invite.v1")
        self._cookies = URLSafeTimedSerializer(secret, salt="accord.session.v1")
        self._operators = URLSafeTimedSerializer(secret, salt="accord.operator.v1")
        self._forms = URLSafeSerializer(secret, salt="accord.form.v1")
        self.operator_token = operator_token
        self.max_age = int(session_days * DAY_SECONDS)

    def link_token(self, invite: Invite) -> str:
        """What an invite link ends with."""
        return str(self._links.dumps(invite.invite_id))

    def enter(self, link_token: str) -> AnnotatorSession:
        """A new session for whoever holds the link. PermissionDenied: forged, damaged or revoked."""
        try:
            invite_id = str(self._links.loads(link_token))
        except BadData as error:
            raise PermissionDenied(
                "this invite link is damaged; copy the whole link, or ask for a new one", reason="BAD_INVITE"
            ) from error
        self._held(invite_id)
        return AnnotatorSession(invite_id, secrets.token_hex(8))

    def annotator(self, cookie: str | None) -> tuple[Invite, AnnotatorSession]:
        """The invite and the session behind a cookie. Unauthenticated: none; PermissionDenied: revoked since."""
        found = AnnotatorSession(**self._read(self._cookies, cookie, "open your invite link to annotate"))
        return self._held(found.invite_id), found

    def annotator_cookie(self, session: AnnotatorSession) -> str:
        """The session as a signed cookie."""
        return str(self._cookies.dumps(asdict(session)))

    def enter_operator(self, token: str) -> str:
        """A cookie for the operator whose token is right. PermissionDenied otherwise."""
        if not hmac.compare_digest(token.encode(), self.operator_token.encode()):
            raise PermissionDenied(
                "this operator link is not of this console; the console prints it when it starts", reason="BAD_TOKEN"
            )
        return str(self._operators.dumps({"session_id": secrets.token_hex(8)}))

    def operator(self, cookie: str | None) -> str:
        """The operator's session id. Unauthenticated where there is none."""
        where = "open the operator link that the console printed when it started"
        return str(self._read(self._operators, cookie, where)["session_id"])

    def form_token(self, session_id: str) -> str:
        """Goes into every form of a session, so that no other site can send one in its name."""
        return str(self._forms.dumps(session_id))

    def check_form(self, session_id: str, token: str | None) -> None:
        """PermissionDenied, CSRF, for a form that this console did not make for this session."""
        if not token or not hmac.compare_digest(token.encode(), self.form_token(session_id).encode()):
            raise PermissionDenied("this form is not of this session; load the page again and repeat", reason="CSRF")

    def _held(self, invite_id: str) -> Invite:
        invite = self._invites.holds(invite_id)
        if invite is None:
            raise PermissionDenied("this invite was revoked; ask for a new one", reason="INVITE_REVOKED")
        return invite

    def _read(self, serializer: URLSafeTimedSerializer, cookie: str | None, what_to_do: str) -> dict[str, Any]:
        try:
            return dict(serializer.loads(cookie or "", max_age=self.max_age))
        except BadData as error:
            raise Unauthenticated(what_to_do, reason="NO_SESSION") from error
