"""Files and folders that are there whole or not at all, also after a kill or a power cut."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accord.errors import ResourceExhausted


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path`, durably, replacing what was there in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync(path.parent)


@contextmanager
def folder(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Gives a temporary folder; when the block ends well it becomes `path`, durably, replacing what was there.

    Without `durable` a power cut may leave damaged files: for copies that are verified whenever they are used.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        for file in temporary.rglob("*") if durable else ():
            _sync(file)
        temporary.chmod(0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            os.rename(path, old / path.name)
            os.rename(temporary, path)
            shutil.rmtree(old)
        else:
            os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if durable:
        _sync(path.parent)


def require_space(path: Path, needed_bytes: int) -> None:
    """Raises ResourceExhausted, DISK_FULL, unless the disk of `path` has room for `needed_bytes`."""
    existing = path
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise ResourceExhausted(
            f"{path} needs {needed_bytes / 2**20:.0f} MiB but {free / 2**20:.0f} MiB are free; "
            "free some (`accord gc` shows what can go) and repeat",
            reason="DISK_FULL",
            metadata={"path": str(path), "needed_bytes": str(needed_bytes), "free_bytes": str(free)},
        )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
