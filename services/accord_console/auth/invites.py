"""Who may annotate: invites, kept in one small file. A link names its invite by a signed id, so it can be revoked."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from accord import atomic
from accord.errors import DataLoss, InvalidArgument, NotFound

NAME = re.compile(r"[\w][\w.@+-]{0,63}")


@dataclass(frozen=True)
class Invite:
    """One person's way in. Times are seconds since 1970. `queue`: only these tasks; empty: any. `revoked`: 0 while
    it holds."""

    invite_id: str
    annotator_id: str
    queue: str
    created: float
    revoked: float = 0.0


class Invites:
    """Every invite ever made. All calls are made in the console's one event loop."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._invites = _load(path)

    def all(self) -> list[Invite]:
        """Newest first."""
        return sorted(self._invites.values(), key=lambda invite: -invite.created)

    def invite(self, name: str, queue: str = "") -> Invite:
        """A new invite for `name`; earlier ones hold on. InvalidArgument where the name would not do as an id."""
        if not NAME.fullmatch(name):
            raise InvalidArgument.at("name", "1 to 64 letters, digits or . _ @ + -, beginning with a letter or digit")
        made = Invite(secrets.token_hex(8), name, queue, self._clock())
        self._keep(made)
        return made

    def revoke(self, name: str) -> int:
        """Ends every invite of `name`, at once and for sessions that are open; how many. NotFound: there was none."""
        mine = [invite for invite in self._invites.values() if invite.annotator_id == name]
        if not mine:
            raise NotFound(f"nobody named {name!r} was invited", reason="UNKNOWN_ANNOTATOR")
        held = [invite for invite in mine if not invite.revoked]
        self._keep(*(replace(invite, revoked=self._clock()) for invite in held))
        return len(held)

    def holds(self, invite_id: str) -> Invite | None:
        """The invite, unless it is unknown or revoked."""
        found = self._invites.get(invite_id)
        return found if found is not None and not found.revoked else None

    def _keep(self, *invites: Invite) -> None:
        changed = self._invites | {invite.invite_id: invite for invite in invites}
        rows = [asdict(invite) for invite in changed.values()]
        atomic.write_bytes(self._path, json.dumps(rows, indent=1, ensure_ascii=False).encode())
        self._invites = changed


def _load(path: Path) -> dict[str, Invite]:
    try:
        rows = [Invite(**row) for row in json.loads(path.read_text())]
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise DataLoss(f"{path} is damaged ({error}); restore it, or delete it and invite everybody again") from error
    return {row.invite_id: row for row in rows}
