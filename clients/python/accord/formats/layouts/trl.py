"""TRL's dataset formats, conversational, as JSONL that `datasets.load_dataset("json")` reads.

- preference: prompt, chosen, rejected, each a list of messages (when read, also without prompt, and as texts);
- unpaired preference: prompt, completion, label (true: good), read as a rating of 1 or 0;
- rankings: prompt, responses, ranks.

Annotator, margin, tie and source are additional columns, which TRL ignores.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from accord.errors import InvalidArgument
from accord.formats import lines
from accord.formats.layouts.layout import Head
from accord.formats.lines import BadLine, shown
from accord.formats.writing import line_of, write_lines
from accord.preference import v1 as preference_v1

_UNPAIRED = ("completion", "label")


class TrlLayout:
    """TRL's datasets; a preference of TRL is also a line of `jsonl`, so only unpaired ones are recognized."""

    suffix = ".jsonl"

    def recognizes(self, head: Head) -> bool:
        return not head.is_array and {"completion", "label"} <= head.keys

    def items(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        return lines.objects(path)

    def lines(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        if "completion" not in item or "label" not in item:
            return [item]
        if not isinstance(item["label"], bool):
            raise BadLine(f"`label` must be true or false, not {shown(item['label'])}")
        rest = {key: value for key, value in item.items() if key not in _UNPAIRED}
        return [{**rest, "response": item["completion"], "rating": float(item["label"])}]

    def write(self, path: Path, records: Iterable[preference_v1.ImportRecord]) -> int:
        lines = [json.dumps(_line(record), ensure_ascii=False) for record in records]
        write_lines(path, lines)
        return len(lines)


def _line(record: preference_v1.ImportRecord) -> dict[str, Any]:
    line = line_of(record, style="conversational")
    if "rating" not in line:
        return line
    if line["rating"] not in (0.0, 1.0) or line.get("min", 0) != 0 or line.get("max", 1) != 1:
        raise InvalidArgument(
            f"a rating of {line['rating']:g} from {line.get('min', 0):g} to {line.get('max', 1):g} is not a label "
            "of TRL (good or bad); export ratings as jsonl or parquet",
            reason="NOT_IN_FORMAT",
        )
    label, response = bool(line.pop("rating")), line.pop("response")
    return {"prompt": line.pop("prompt"), "completion": response, "label": label, **line}
