"""The secret that signs links and cookies. Deleting its file invalidates all sessions and invite links."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from accord.errors import DataLoss


def load_secret(folder: Path) -> str:
    """The secret in `folder`, created at the first call; readable only by this user."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "secret"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(32))
        file.flush()
        os.fsync(file.fileno())
    return _read(path)


def _read(path: Path) -> str:
    found = path.read_text().strip()
    if len(found) < 64:
        raise DataLoss(f"{path} is damaged. Delete it and restart; all invite links must then be created again")
    return found
