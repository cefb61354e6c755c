"""The seam between records and the files of other tools.

A layout is a class behind an entry point of the group `accord.formats`, whose name is what `--format` takes. To add
one, write a class with the methods of `Layout` and register it; see `jsonl.py` for the shortest.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from accord import plugins
from accord.errors import FailedPrecondition
from accord.formats.lines import at, open_file
from accord.preference import v1 as preference_v1

log = logging.getLogger(__name__)

GROUP = "accord.formats"
# The part of a file that detection examines.
HEAD_BYTES = 2**16


@dataclass(frozen=True)
class Head:
    """The beginning of a file, by which a layout recognizes its own. `data` has no byte-order mark and no leading white
    space; `keys` are those of the first object: of the first line, or of the first element of a JSON array."""

    data: bytes
    keys: Set[str]

    @property
    def is_array(self) -> bool:
        """Whether the file is one JSON array; otherwise it holds lines, or is not JSON."""
        return self.data.startswith(b"[")


class Layout(Protocol):
    """How one tool stores preferences in a file."""

    # The usual file name extension.
    suffix: str

    def recognizes(self, head: Head) -> bool:
        """Whether a file with this head can only be of this layout. False if it should never be detected."""
        ...

    def items(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        """(place from 1, item): lines of JSONL, elements of a JSON array, rows of a table.

        InvalidArgument, BAD_LINE, names the place of an item that cannot be read.
        """
        ...

    def lines(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        """An item as lines of the forms of `accord.formats`, one per judgement. Raises BadLine with the problem."""
        ...

    def write(self, path: Path, records: Iterable[preference_v1.ImportRecord]) -> int:
        """Writes a file that reads back as the same records and returns their number.

        InvalidArgument, NOT_IN_FORMAT, for a record that the layout cannot hold.
        """
        ...


def layout_names() -> list[str]:
    """The names of all installed layouts, sorted."""
    return plugins.names(GROUP)


def layout_of(name: str) -> Layout:
    """The layout of this name. InvalidArgument, UNKNOWN_FORMAT, if none is installed under it."""
    return cast(Layout, plugins.load(GROUP, name, field="format")())


def detect(path: Path) -> str:
    """The name of a file's layout: the first that recognizes it, otherwise `jsonl`.

    NotFound if there is no such file; InvalidArgument, BAD_LINE, for a JSON array that no layout recognizes.
    """
    with open_file(path) as file:
        start = file.read(HEAD_BYTES)
        # The first element of an array may be longer than that, and its keys decide.
        while _is_cut(start) and (more := file.read(len(start))):
            start += more
    head = head_of(start)
    for name in layout_names():
        try:
            layout = layout_of(name)
        except FailedPrecondition as error:  # a plug-in that cannot be imported must not break the others
            log.warning("format %s was left out of the detection: %s", name, error.message)
            continue
        if layout.recognizes(head):
            return name
    if head.is_array:
        raise at(
            path, 1, "a JSON array in an unknown layout; write one object per line, or pass the layout with --format"
        )
    return "jsonl"


def head_of(start: bytes) -> Head:
    """The head of a file that begins with these bytes. Without keys if the first object cannot be read."""
    data = _without_mark(start)
    try:
        first = _first(data)
    except (ValueError, RecursionError):
        return Head(data, frozenset())
    return Head(data, frozenset(first if isinstance(first, dict) else ()))


def _is_cut(start: bytes) -> bool:
    """Whether a JSON array's first element ends behind these bytes."""
    data = _without_mark(start)
    if not data.startswith(b"["):
        return False
    try:
        _first(data)
    except RecursionError:
        return False
    except ValueError:
        return True
    return False


def _without_mark(start: bytes) -> bytes:
    return start.removeprefix(b"\xef\xbb\xbf").lstrip()


def _first(data: bytes) -> Any:
    """The first JSON value: of an array, or of a line. ValueError if there is none."""
    text = data[1:].lstrip() if data.startswith(b"[") else data.split(b"\n", 1)[0]
    return json.JSONDecoder().raw_decode(text.decode("utf-8", "replace"))[0]
