"""JSONL, line by line: the values of a line, and errors that name the file and the line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from accord.errors import InvalidArgument, NotFound


class BadLine(Exception):
    """A problem in the current line; becomes InvalidArgument with file and line."""


def objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of each line; blank lines are skipped.

    NotFound if there is no such file; InvalidArgument, BAD_LINE, for a line that is not one complete object.
    """
    with open_file(path) as file:
        for number, raw in enumerate(file, start=1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if line.strip():
                try:
                    yield number, object_of(line)
                except BadLine as error:
                    raise at(path, number, error) from error


def at(path: Path, number: int, problem: object) -> InvalidArgument:
    """The error for one line of a file."""
    return InvalidArgument(
        f"{path}:{number}: {problem}", reason="BAD_LINE", metadata={"file": str(path), "line": str(number)}
    )


def open_file(path: Path) -> BinaryIO:
    """The file, opened for reading; NotFound if there is none."""
    try:
        return path.open("rb")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"There is no file {path}", reason="NO_FILE") from error


def object_of(line: bytes) -> dict[str, Any]:
    """One line of JSONL. Raises BadLine with the problem."""
    try:
        text = line.decode("utf-8").rstrip()
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise BadLine(f"not UTF-8 text (byte {error.start})") from error
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text) or error.msg.startswith("Unterminated")
        hint = " (is the line cut off?)" if cut else ""
        raise BadLine(f"not valid JSON: {error.msg} (column {error.colno}){hint}") from error
    except ValueError as error:  # a number with thousands of digits
        raise BadLine(f"not valid JSON: {error}") from error
    except RecursionError as error:
        raise BadLine("nested too deeply") from error
    if not isinstance(value, dict):
        raise BadLine(f"must be a JSON object, not {shown(value)}")
    return value


def _no_constant(name: str) -> Any:
    raise BadLine(f"{name} is not JSON; numbers must be finite")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise BadLine(f"the key {next(n for n in names if names.count(n) > 1)!r} is given twice")
    return found


def text_of(line: dict[str, Any], key: str, where: str = "") -> str:
    """The text of a key, checked to be encodable."""
    value, name = line[key], f"{where}: `{key}`" if where else f"`{key}`"
    if not isinstance(value, str):
        raise BadLine(f"{name} must be a text, not {shown(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadLine(f"{name} contains half of a character (a lone surrogate, at {error.start})") from error
    return value


def number_of(line: dict[str, Any], key: str) -> float:
    """The finite number of a key."""
    value = line[key]
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return float(value)
    raise BadLine(f"`{key}` must be a finite number, not {shown(value)}")


def shown(value: Any) -> str:
    """A value as shown in an error."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
