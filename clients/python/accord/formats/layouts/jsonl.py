"""Accord's own lines, one JSON object each; see accord.formats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from accord.formats import lines
from accord.formats.writing import write
from accord.preference import v1 as preference_v1


class JsonlLayout:
    """See `Layout`."""

    suffix = ".jsonl"

    def items(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        """See `Layout`."""
        return lines.objects(path)

    def lines(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        """See `Layout`."""
        return [item]

    def write(self, path: Path, records: Iterable[preference_v1.ImportRecord]) -> int:
        """See `Layout`."""
        return write(path, records)


layout = JsonlLayout()
