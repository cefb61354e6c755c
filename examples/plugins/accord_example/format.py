"""A format: preference pairs as lines of prompt, chosen, rejected, separated by tabs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from accord.errors import InvalidArgument
from accord.formats.layouts.layout import Head
from accord.formats.lines import at
from accord.formats.writing import line_of, write_lines
from accord.preference import v1 as preference_v1

KEYS = ("prompt", "chosen", "rejected")


class TabsLayout:
    """Plain pairs only. A record that a line cannot hold is refused, never truncated."""

    suffix = ".tsv"

    def recognizes(self, head: Head) -> bool:
        return head.data.split(b"\n", 1)[0].split(b"\t") == [key.encode() for key in KEYS]

    def items(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            cells = line.split("\t")
            if number == 1:
                continue  # the names of the columns
            if len(cells) != len(KEYS):
                raise at(path, number, f"has {len(cells)} columns instead of {len(KEYS)}")
            yield number, dict(zip(KEYS, cells, strict=True))

    def lines(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        return [item]

    def write(self, path: Path, records: Iterable[preference_v1.ImportRecord]) -> int:
        lines = ["\t".join(_cells(record)) for record in records]
        write_lines(path, ["\t".join(KEYS), *lines])
        return len(lines)


def _cells(record: preference_v1.ImportRecord) -> list[str]:
    line = line_of(record)
    cells = [line.get(key) for key in KEYS]
    texts = [cell for cell in cells if isinstance(cell, str) and not set(cell) & {"\t", "\n", "\r"}]
    # There is no column for the annotator and the source: `accord preferences import --source` sets them again.
    if len(texts) < len(KEYS) or line.keys() - {*KEYS, "annotator", "annotator_kind", "source"}:
        raise InvalidArgument(
            "a record is more than a pair of texts without tabs and line breaks; use --format jsonl",
            reason="NOT_IN_FORMAT",
        )
    return texts
