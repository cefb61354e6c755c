"""Human comparisons from a folder of JSONL files: `<source>_train.jsonl` and `<source>_test.jsonl`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accord import formats
from accord.errors import NotFound
from accord.preference import v1 as preference_v1
from accord.types import v1 as types_v1

SOURCES = ("harmless", "pandalm", "llmbar")


@dataclass(frozen=True)
class Pair:
    """One comparison: `chosen` is the answer that people found better."""

    source: str
    prompt: types_v1.Conversation
    chosen: str
    rejected: str


def read(data: Path, source: str, split: str) -> list[preference_v1.ImportRecord]:
    """The records of one file, each with `source`. NotFound names a missing file, InvalidArgument a bad line."""
    path = data / f"{source}_{split}.jsonl"
    if not path.is_file():
        raise NotFound(
            f"{path} does not exist; --data names the folder with <source>_train.jsonl and <source>_test.jsonl"
        )
    records = formats.read(path).records
    for record in records:
        record.source = source
    return records


def pairs(records: list[preference_v1.ImportRecord]) -> list[Pair]:
    """The comparisons as plain pairs."""
    found = []
    for record in records:
        texts = {completion.local_id: completion.text for completion in record.completions}
        comparison = record.comparison
        found.append(Pair(record.source, record.prompt, texts[comparison.chosen_id], texts[comparison.rejected_id]))
    return found


def accuracy(pairs: list[Pair], differences: list[float]) -> dict[str, float]:
    """The share of pairs whose difference (chosen less rejected) is above 0, ties half: by source, and `mix`."""
    right: dict[str, list[float]] = {}
    for pair, difference in zip(pairs, differences, strict=True):
        for name in (pair.source, "mix"):
            right.setdefault(name, []).append(0.5 if difference == 0 else float(difference > 0))
    return {name: sum(values) / len(values) for name, values in right.items()}
