"""The common parts of the exports of annotation tools: named answers, and judgements that name them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from accord.errors import InvalidArgument
from accord.formats.lines import BadLine, at, object_of, open_file, shown
from accord.formats.writing import line_of
from accord.preference import v1 as preference_v1

# Keys of our lines that the tools have no field for.
BESIDE = ("margin", "min", "max", "criterion", "source", "annotator_kind", "comment", "criteria", "truncated")


def elements(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, element) of a JSON array of objects, or of JSONL."""
    with open_file(path) as file:
        data = file.read().removeprefix(b"\xef\xbb\xbf")
    if not data.lstrip().startswith(b"["):
        for number, line in enumerate(data.splitlines(), start=1):
            if line.strip():
                try:
                    yield number, object_of(line)
                except BadLine as error:
                    raise at(path, number, error) from error
        return
    try:
        found = json.loads(data)
    except UnicodeDecodeError as error:
        raise at(path, data.count(b"\n", 0, error.start) + 1, "not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise at(path, error.lineno, f"not valid JSON: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise at(path, 1, f"not valid JSON: {error}") from error
    for number, value in enumerate(found, start=1):
        if not isinstance(value, dict):
            raise at(path, number, f"must be an object, not {shown(value)}")
        yield number, value


def compared(prompt: Any, answers: dict[str, Any], best: str) -> dict[str, Any]:
    """The line of a comparison of two answers: `best` is the better one's name, or `tie`."""
    if len(answers) != 2:
        raise BadLine(f"a comparison needs two answers, not {len(answers)}: {', '.join(answers)}")
    first, second = answers
    if best not in (first, second, "tie"):
        raise BadLine(f"the verdict is {shown(best)}; it must be {first}, {second} or tie")
    if best == second:
        first, second = second, first
    line = {"prompt": prompt, "chosen": answers[first], "rejected": answers[second]}
    return line | {"tie": True} if best == "tie" else line


def ranked(prompt: Any, answers: dict[str, Any], rank_of: dict[str, int]) -> dict[str, Any]:
    """The line of a ranking (0 is best); every answer needs a rank."""
    missing = [name for name in answers if name not in rank_of]
    if missing or len(rank_of) != len(answers):
        wrong = missing or [name for name in rank_of if name not in answers]
        raise BadLine(f"the ranking does not match the answers: {', '.join(wrong)}")
    places = sorted(set(rank_of.values()))
    ranks = [places.index(rank_of[name]) for name in answers]
    return {"prompt": prompt, "responses": list(answers.values()), "ranks": ranks}


def rated(prompt: Any, answers: dict[str, Any], value: Any) -> dict[str, Any]:
    """The line of a rating of the only answer."""
    if len(answers) != 1:
        raise BadLine(f"a rating needs one answer, not {len(answers)}: {', '.join(answers)}")
    return {"prompt": prompt, "response": next(iter(answers.values())), "rating": value}


def named(record: preference_v1.ImportRecord, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """A record as its line, and its answers by the names that the tool shows. InvalidArgument without a judgement."""
    line = line_of(record)
    if record.WhichOneof("judgement") is None:
        raise InvalidArgument(
            "this format holds judgements only; export prompts as jsonl or parquet", reason="NOT_IN_FORMAT"
        )
    texts = line.get("responses") or [line[key] for key in ("chosen", "rejected", "response") if key in line]
    return line, {f"{names[0]}{number}": text for number, text in enumerate(texts, start=1)}


def array(items: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The lines of a JSON array, one element each."""
    yield "["
    for number, item in enumerate(items, start=1):
        yield json.dumps(item, ensure_ascii=False) + ("," if number < len(items) else "")
    yield "]"
