"""`file://` and plain paths: used in place, memory-mapped, not copied."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from accord.errors import NotFound
from accord_runtime.artifacts.transfer import Progress


def local_path(uri: str) -> Path:
    """The path of a `file://` URI or a plain path."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path) if parts.scheme == "file" else uri)


async def fetch(uri: str, target: Path, progress: Progress) -> Path:
    """The folder itself. NotFound, WEIGHTS_NOT_FOUND."""
    folder = local_path(uri)
    if not folder.is_dir():
        raise NotFound(f"{folder} does not exist or is not a folder. Was it freed?", reason="WEIGHTS_NOT_FOUND")
    return folder
