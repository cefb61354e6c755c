"""Blind comparisons of two policies by people, and their results. One small file each."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from accord import atomic
from accord.errors import DataLoss, NotFound
from accord.preference import v1 as preference_v1
from accord_console.comparisons.statistics import wilson


@dataclass(frozen=True)
class Comparison:
    """Policy `first` against policy `second` on `prompts` held-out prompts; each pair is judged by `redundancy` people.

    `state`: `asking` while the policies answer, `open` when people can judge, `failed` with a message. `same`: the
    prompts to which both gave the same answer; these need no judgement.
    """

    comparison_id: str
    first: str
    second: str
    first_digest: str
    second_digest: str
    prompts: int
    redundancy: int
    max_new_tokens: int
    temperature: float
    created: float
    state: str = "asking"
    message: str = ""
    tasks: int = 0
    same: int = 0

    @property
    def queue(self) -> str:
        """The queue of its tasks."""
        return f"compare/{self.comparison_id}"


@dataclass(frozen=True)
class Standing:
    """The judgements so far. `shares`: for each judged pair, the share of judgements in favour of the first policy."""

    wins: int
    losses: int
    ties: int
    shares: Sequence[float] = ()

    @property
    def total(self) -> int:
        """The number of judgements."""
        return self.wins + self.losses + self.ties

    @property
    def rate(self) -> float | None:
        """The win rate of the first policy, as the mean over pairs; a tie counts half for each. None without
        judgements."""
        return sum(self.shares) / len(self.shares) if self.shares else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the rate. The trials are the pairs, not the judgements: several people mostly agree
        on a pair, and counting each would make the interval too narrow."""
        return wilson(sum(self.shares), len(self.shares)) if self.shares else None


def standing(comparison: Comparison, records: Sequence[preference_v1.Record]) -> Standing:
    """Counts people's judgements between an answer of the first policy and one of the second."""
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for record in records:
        made_by = {answer.completion_id: answer.origin.weights_digest for answer in record.completions}
        judgement = record.feedback.comparison
        by_people = record.feedback.annotator.kind == preference_v1.ANNOTATOR_KIND_HUMAN
        if not record.feedback.HasField("comparison") or not by_people:
            continue
        pair = (made_by.get(judgement.chosen_id), made_by.get(judgement.rejected_id))
        if set(pair) != {comparison.first_digest, comparison.second_digest}:
            continue
        score = 0.5 if judgement.tie else float(pair[0] == comparison.first_digest)
        scores[record.prompt.prompt_id].append(score)
    given = [score for found in scores.values() for score in found]
    return Standing(
        wins=given.count(1.0),
        losses=given.count(0.0),
        ties=given.count(0.5),
        shares=[sum(found) / len(found) for found in scores.values()],
    )


class Comparisons:
    """The comparisons of this console, stored in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[Comparison]:
        """All comparisons, newest first."""
        return sorted((self._read(path) for path in self._folder.glob("*.json")), key=lambda found: -found.created)

    def get(self, comparison_id: str) -> Comparison:
        """The comparison. NotFound if there is none."""
        path = self._folder / f"{comparison_id}.json"
        if not comparison_id.isalnum() or not path.exists():
            raise NotFound(f"There is no comparison {comparison_id}", reason="UNKNOWN_COMPARISON")
        return self._read(path)

    def store(self, comparison: Comparison) -> None:
        """Stores a comparison, durably."""
        data = json.dumps(asdict(comparison), indent=1, ensure_ascii=False).encode()
        atomic.write_bytes(self._folder / f"{comparison.comparison_id}.json", data)

    def interrupt(self) -> None:
        """Marks the comparisons that were running when the console stopped as failed."""
        for found in self.all():
            if found.state == "asking":
                self.store(replace(found, state="failed", message="the console stopped while generating answers"))

    def _read(self, path: Path) -> Comparison:
        try:
            return Comparison(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise DataLoss(f"{path} is damaged ({error}). Delete it") from error
