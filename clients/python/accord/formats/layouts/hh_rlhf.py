"""The form of Anthropic's hh-rlhf: two complete dialogues per line, `chosen` and `rejected`, which differ in the last
answer.

It has no place for annotators, sources and cut-off answers: a file keeps prompts, answers and choices only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from accord.errors import InvalidArgument
from accord.formats import dialogue, lines
from accord.formats.layouts.layout import Head
from accord.formats.lines import BadLine, text_of
from accord.formats.writing import write_lines
from accord.preference import v1 as preference_v1

_KEYS = ("chosen", "rejected")


class HhRlhfLayout:
    """Pairs of complete dialogues."""

    suffix = ".jsonl"

    def recognizes(self, head: Head) -> bool:
        return False  # `jsonl` reads these lines too

    def items(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        return lines.objects(path)

    def lines(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        for key in _KEYS:
            if key not in item:
                raise BadLine(f"`{key}` is missing; a line needs `chosen` and `rejected`")
            if dialogue.split_answer(text_of(item, key)) is None:
                raise BadLine(f"`{key}` is not a dialogue of Human: and Assistant: that ends with an answer")
        if "prompt" in item:
            raise BadLine("has a `prompt`, but in hh-rlhf the prompt begins both dialogues; import the file as jsonl")
        return [item]

    def write(self, path: Path, records: Iterable[preference_v1.ImportRecord]) -> int:
        lines = [json.dumps(_line(record), ensure_ascii=False) for record in records]
        write_lines(path, lines)
        return len(lines)


def _line(record: preference_v1.ImportRecord) -> dict[str, str]:
    comparison = record.comparison
    if record.WhichOneof("judgement") != "comparison" or comparison.tie or comparison.HasField("margin"):
        raise _refused("can hold only comparisons with a winner and without a margin")
    prompt = dialogue.render(list(record.prompt.messages))
    if prompt is None:
        raise _refused(
            "can hold only turns of a person and an assistant, without texts that look like the start of a turn"
        )
    text = {one.local_id: one.text for one in record.completions}
    line = {}
    for key, name in zip(_KEYS, (comparison.chosen_id, comparison.rejected_id), strict=True):
        line[key] = f"{prompt} {text[name]}"
        if dialogue.split_answer(line[key]) != (prompt, text[name]):
            raise _refused("cannot hold white space around an answer, or an answer that contains turns")
    return line


def _refused(limit: str) -> InvalidArgument:
    return InvalidArgument(f"hh-rlhf {limit}; export as jsonl, trl or parquet", reason="NOT_IN_FORMAT")
