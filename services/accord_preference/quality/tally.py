"""The input of the quality report: the judgements of one kind of annotator, added one by one.

Judgements are stored as small numbers, not as rows, so that a million of them fit into memory.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median

from accord_preference.domain.pairwise import Pair, choices, is_right, scaled
from accord_preference.storage.store import JudgedRow


@dataclass
class Votes:
    """Choices between pairs. Each vote: the pair, the annotator, FIRST, SECOND or TIE, and the time (microseconds)."""

    pairs: dict[Pair, int] = field(default_factory=dict)
    pair: list[int] = field(default_factory=list)
    annotator: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    created_us: list[int] = field(default_factory=list)
    _latest: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, pair: Pair, annotator: int, label: int, created_us: int) -> None:
        """Adds a choice. If the annotator judges the same pair in another task, the later choice counts."""
        number = self.pairs.setdefault(pair, len(self.pairs))
        place = self._latest.setdefault((number, annotator), len(self.pair))
        if place == len(self.pair):
            self.pair.append(number)
            self.annotator.append(annotator)
            self.label.append(label)
            self.created_us.append(created_us)
        else:
            self.label[place], self.created_us[place] = label, created_us

    def labels_by_pair(self) -> list[list[int]]:
        """The labels of each pair."""
        found: list[list[int]] = [[] for _ in self.pairs]
        for number, label in zip(self.pair, self.label, strict=True):
            found[number].append(label)
        return found


@dataclass
class Person:
    """The counts of one annotator."""

    judgements: int = 0
    late: int = 0
    gold: int = 0
    gold_right: int = 0
    elapsed_us: list[int] = field(default_factory=list)


@dataclass
class Tally:
    """The judgements of one kind of annotator. Gold tasks are separate, because they measure annotators, not
    agreement."""

    names: dict[str, int] = field(default_factory=dict)
    people: list[Person] = field(default_factory=list)
    votes: Votes = field(default_factory=Votes)
    gold_votes: Votes = field(default_factory=Votes)
    gold_truth: dict[int, int] = field(default_factory=dict)
    # (criterion, completion) -> annotator -> rating from 0 to 1.
    ratings: dict[tuple[str, str], dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    # The time of each judgement, its annotator, and its duration (-1: unknown), microseconds.
    times: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, row: JudgedRow) -> None:
        """Adds a judgement."""
        who = self.names.setdefault(row.annotator_id, len(self.names))
        if who == len(self.people):
            self.people.append(Person())
        person = self.people[who]
        person.judgements += 1
        person.late += row.late
        if row.elapsed_us is not None:
            person.elapsed_us.append(row.elapsed_us)
        self.times.append((row.created_us, who, -1 if row.elapsed_us is None else row.elapsed_us))
        value = json.loads(row.judgement)
        if row.known is not None:
            known = json.loads(row.known)
            person.gold += 1
            person.gold_right += is_right(row.kind, value, known)
            for pair, label in choices(row.kind, value):
                self.gold_votes.add(pair, who, label, row.created_us)
            for pair, label in choices(row.kind, known["value"]):
                if pair in self.gold_votes.pairs:
                    self.gold_truth[self.gold_votes.pairs[pair]] = label
            return
        for pair, label in choices(row.kind, value):
            self.votes.add(pair, who, label, row.created_us)
        rated = json.loads(row.criteria) if row.criteria else []
        for rating in [*rated, *([value] if "completion_id" in value else [])]:
            self.ratings[rating["criterion"], rating["completion_id"]][who] = scaled(rating)

    def median_us(self) -> float | None:
        """The median time from lease to answer."""
        found = [elapsed for _, _, elapsed in self.times if elapsed >= 0]
        return median(found) if found else None
