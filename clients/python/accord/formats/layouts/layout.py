"""The seam between records and the files of other tools.

A layout is a module `accord.formats.layouts.<name>` with `layout`; it is found by its name, or by what a file holds.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast

from accord.errors import InvalidArgument
from accord.formats.lines import open_file
from accord.preference import v1 as preference_v1

# Name -> module.
LAYOUTS = {
    "jsonl": "jsonl",
    "trl": "trl",
    "hh-rlhf": "hh_rlhf",
    "argilla": "argilla",
    "label-studio": "label_studio",
    "parquet": "parquet",
}


class Layout(Protocol):
    """How one tool lays preferences out in a file."""

    # The usual end of a file's name.
    suffix: str

    def items(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        """(place from 1, what stands there): lines of JSONL, elements of a JSON array, rows of a table.

        InvalidArgument, BAD_LINE, names the place of what cannot be read.
        """
        ...

    def lines(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        """An item as lines of the forms of `accord.formats`, one a judgement. BadLine says what is wrong."""
        ...

    def write(self, path: Path, records: Iterable[preference_v1.ImportRecord]) -> int:
        """Writes a file that reads back as the same records; how many. InvalidArgument for what it cannot hold."""
        ...


def layout_of(name: str) -> Layout:
    """The layout of this name."""
    if name not in LAYOUTS:
        raise InvalidArgument(f"there is no format {name!r}; there are {', '.join(LAYOUTS)}", reason="UNKNOWN_FORMAT")
    return cast(Layout, importlib.import_module(f"accord.formats.layouts.{LAYOUTS[name]}").layout)


def detect(path: Path) -> str:
    """The name of a file's layout: by its magic number or its first object. NotFound when there is no such file."""
    with open_file(path) as file:
        start = file.read(2**16).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"["):
        text = start[1:].decode("utf-8", "replace").lstrip()
        try:
            first = json.JSONDecoder().raw_decode(text)[0]
        except ValueError:
            # Cut by the length read: an object's first keys tell all the same.
            return "label-studio" if '"annotations"' in text or '"data"' in text else "argilla"
        return "label-studio" if isinstance(first, dict) and "data" in first else "argilla"
    try:
        first = json.loads(start.split(b"\n", 1)[0])
    except (ValueError, RecursionError):
        return "jsonl"
    if isinstance(first, dict) and "fields" in first and "responses" in first:
        return "argilla"
    return "trl" if isinstance(first, dict) and {"completion", "label"} <= first.keys() else "jsonl"
