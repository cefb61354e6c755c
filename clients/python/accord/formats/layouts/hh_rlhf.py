"""The form of Anthropic's hh-rlhf: two whole dialogues a line, `chosen` and `rejected`, alike up to the last answer.

Who judged, where it comes from and what was cut off have no place in it: what is written says the same of prompts,
answers and verdicts, and nothing else.
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
    """Pairs of whole dialogues."""

    suffix = ".jsonl"

    def recognizes(self, head: Head) -> bool:
        return False  # `jsonl` reads these lines too, and takes more

    def items(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        return lines.objects(path)

    def lines(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        for key in _KEYS:
            if key not in item:
                raise BadLine(f"has no `{key}`: a line is `chosen` and `rejected`")
            if dialogue.split_answer(text_of(item, key)) is None:
                raise BadLine(f"`{key}` is no dialogue of Human: and Assistant: that ends with an answer")
        if "prompt" in item:
            raise BadLine("has a `prompt`: here it is the beginning of both dialogues; import it as jsonl")
        return [item]

    def write(self, path: Path, records: Iterable[preference_v1.ImportRecord]) -> int:
        lines = [json.dumps(_line(record), ensure_ascii=False) for record in records]
        write_lines(path, lines)
        return len(lines)


def _line(record: preference_v1.ImportRecord) -> dict[str, str]:
    comparison = record.comparison
    if record.WhichOneof("judgement") != "comparison" or comparison.tie or comparison.HasField("margin"):
        raise _refused("holds comparisons with a winner and without a margin")
    prompt = dialogue.render(list(record.prompt.messages))
    if prompt is None:
        raise _refused("holds turns of a person and an assistant, and no text that reads like the start of a turn")
    text = {one.local_id: one.text for one in record.completions}
    line = {}
    for key, name in zip(_KEYS, (comparison.chosen_id, comparison.rejected_id), strict=True):
        line[key] = f"{prompt} {text[name]}"
        if dialogue.split_answer(line[key]) != (prompt, text[name]):
            raise _refused("keeps no white space around an answer, and no answer with turns in it")
    return line


def _refused(holds: str) -> InvalidArgument:
    return InvalidArgument(f"hh-rlhf {holds}; export as jsonl, trl or parquet", reason="NOT_IN_FORMAT")
