"""The lines of accord.formats, one JSON object each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from accord.formats import lines
from accord.formats.layouts.layout import Head
from accord.formats.writing import write
from accord.preference import v1 as preference_v1


class JsonlLayout:
    """One judgement or prompt per line."""

    suffix = ".jsonl"

    def recognizes(self, head: Head) -> bool:
        return False  # the default for lines that no layout recognizes

    def items(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        return lines.objects(path)

    def lines(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        return [item]

    def write(self, path: Path, records: Iterable[preference_v1.ImportRecord]) -> int:
        return write(path, records)
