"""Files and folders that are written whole or not at all, also when the process is killed or the power fails."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accord.errors import ResourceExhausted


@contextmanager
def file(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yields a temporary file. When the block succeeds, the file becomes `path`, durably and in one atomic step.

    If the block raises, the old file stays. `private`: only this user can read it (0600); otherwise the umask decides.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    temporary = Path(name)
    try:
        yield temporary
        os.fsync(handle)
        if not private:
            os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    _sync(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a private file and creates its folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with file(path, private=True) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes a file with the user's umask, in UTF-8, and creates its folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def folder(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary folder. When the block succeeds, it becomes `path`, durably, replacing an existing folder.

    Without `durable` a power failure may leave damaged files: for copies that are verified at each use.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        for part in temporary.rglob("*") if durable else ():
            _sync(part)
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
            f"{path} needs {needed_bytes / 2**20:.0f} MiB but {free / 2**20:.0f} MiB are free. "
            "Free some space (`accord gc` lists what can be deleted), then try again",
            reason="DISK_FULL",
            metadata={"path": str(path), "needed_bytes": str(needed_bytes), "free_bytes": str(free)},
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
