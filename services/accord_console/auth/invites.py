"""Invites of annotators, stored in one small file. A link contains a signed invite id, so it can be revoked."""

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
    """An invite of one person. Times are seconds since 1970. `queue`: only tasks of this queue; empty: any. `revoked`:
    0 while the invite is active."""

    invite_id: str
    annotator_id: str
    queue: str
    created: float
    revoked: float = 0.0


class Invites:
    """All invites, active and revoked. Used only in the console's event loop."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._invites = _load(path)

    def all(self) -> list[Invite]:
        """All invites, newest first."""
        return sorted(self._invites.values(), key=lambda invite: -invite.created)

    def invite(self, name: str, queue: str = "") -> Invite:
        """A new invite for `name`; earlier ones stay active. InvalidArgument if the name cannot be an id."""
        if not NAME.fullmatch(name):
            raise InvalidArgument.at(
                "name", "must be 1 to 64 letters, digits or . _ @ + -, starting with a letter or digit"
            )
        made = Invite(secrets.token_hex(8), name, queue, self._clock())
        self._store(made)
        return made

    def revoke(self, name: str) -> int:
        """Revokes all invites of `name`, at once and for open sessions; returns their number. NotFound if there are
        none."""
        mine = [invite for invite in self._invites.values() if invite.annotator_id == name]
        if not mine:
            raise NotFound(f"There is no invite for {name!r}", reason="UNKNOWN_ANNOTATOR")
        active = [invite for invite in mine if not invite.revoked]
        self._store(*(replace(invite, revoked=self._clock()) for invite in active))
        return len(active)

    def active(self, invite_id: str) -> Invite | None:
        """The invite, unless it is unknown or revoked."""
        found = self._invites.get(invite_id)
        return found if found is not None and not found.revoked else None

    def _store(self, *invites: Invite) -> None:
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
        raise DataLoss(f"{path} is damaged ({error}). Restore it, or delete it and create all invites again") from error
    return {row.invite_id: row for row in rows}
