"""Paths that arrive over the network."""

from __future__ import annotations

from pathlib import Path

from accord.errors import InvalidArgument


def inside(root: Path, relative: str) -> Path:
    """`root`/`relative`. InvalidArgument for a path outside `root`."""
    path = (root / relative).resolve()
    if not relative or not path.is_relative_to(root.resolve()):
        raise InvalidArgument.at("path", f"{relative!r} is outside the artifact")
    return path
