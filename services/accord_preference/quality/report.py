"""Computes the report from a tally, with pure functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from accord.preference import v1 as preference_v1
from accord_preference import converters
from accord_preference.domain.pairwise import FIRST, TIE
from accord_preference.quality import krippendorff
from accord_preference.quality.dawid_skene import estimate
from accord_preference.quality.tally import Tally
from accord_preference.storage.store import FLAGGED, SKIPPED

# An answer below this fraction of the median time of its kind is hasty, and such an annotator is an outlier.
HASTY, OUTLIER = 1 / 4, 1 / 3
# Minimum numbers: timed answers for an outlier, and shared pairs in each half for drift.
LEAST_TIMED, LEAST_HALF = 5, 10


@dataclass(frozen=True)
class Evidence:
    """The report's other inputs, in addition to the judgements: annotators by (id, kind), and lengths of completions in
    characters."""

    states: Mapping[tuple[str, int], int]
    outcomes: Mapping[tuple[str, int], Mapping[int, int]]
    corrected: Mapping[tuple[str, int], int]
    lengths: Mapping[str, int]


def measure(kind: int, tally: Tally, evidence: Evidence, window_us: int) -> preference_v1.KindQuality:
    """The report on the annotators of one kind."""
    by_pair = tally.votes.labels_by_pair()
    middle = tally.median_us()
    people = _people(kind, tally, evidence, by_pair, middle)
    return preference_v1.KindQuality(
        kind=preference_v1.AnnotatorKind.ValueType(kind),
        judgements=len(tally.times),
        shared_pairs=sum(len(labels) > 1 for labels in by_pair),
        alpha=krippendorff.nominal(by_pair),
        rating_alpha=krippendorff.interval([list(unit.values()) for unit in tally.ratings.values()]),
        median_seconds=_seconds(middle),
        annotators=sorted(people, key=lambda one: (-one.judgements, one.annotator.annotator_id)),
        windows=_windows(tally, evidence, window_us),
    )


def _people(
    kind: int, tally: Tally, evidence: Evidence, by_pair: Sequence[Sequence[int]], middle: float | None
) -> list[preference_v1.AnnotatorQuality]:
    agreed = _consensus(tally, by_pair)
    reliability = _reliability(tally)
    labels: list[list[int]] = [[] for _ in tally.people]
    for who, label in zip(tally.votes.annotator, tally.votes.label, strict=True):
        labels[who].append(label)
    found = []
    for name, who in tally.names.items():
        person, mine, key = tally.people[who], agreed[who], (name, kind)
        own = median(person.elapsed_us) if person.elapsed_us else None
        outlier = own is not None and middle is not None and own < middle * OUTLIER
        outcomes = evidence.outcomes.get(key, {})
        found.append(
            preference_v1.AnnotatorQuality(
                annotator=converters.annotator(name, kind),
                state=preference_v1.AnnotatorState.ValueType(
                    evidence.states.get(key, preference_v1.ANNOTATOR_STATE_ACTIVE)
                ),
                judgements=person.judgements,
                shared_pairs=len(mine),
                consensus_agreement=_mean(mine),
                gold_answers=person.gold,
                gold_accuracy=person.gold_right / person.gold if person.gold else None,
                reliability=reliability.get(who),
                median_seconds=_seconds(own),
                hasty_answers=sum(elapsed < (middle or 0) * HASTY for elapsed in person.elapsed_us),
                speed_outlier=outlier and len(person.elapsed_us) >= LEAST_TIMED,
                skipped=outcomes.get(SKIPPED, 0),
                flagged=outcomes.get(FLAGGED, 0),
                late=person.late,
                corrected=evidence.corrected.get(key, 0),
                tie_rate=_mean([label == TIE for label in labels[who]]),
                drift=_drift(mine),
            )
        )
    return found


def _consensus(tally: Tally, by_pair: Sequence[Sequence[int]]) -> list[list[bool]]:
    """For each annotator, in order of time: whether each choice agrees with the majority of the others."""
    votes = tally.votes
    found: list[list[bool]] = [[] for _ in tally.people]
    counts = [Counter(labels) for labels in by_pair]
    for place in sorted(range(len(votes.pair)), key=lambda place: votes.created_us[place]):
        label, others = votes.label[place], counts[votes.pair[place]].copy()
        others[label] -= 1
        ranked = others.most_common(2)
        divided = len(ranked) > 1 and ranked[0][1] == ranked[1][1]
        if ranked[0][1] > 0 and not divided:
            found[votes.annotator[place]].append(ranked[0][0] == label)
    return found


def _reliability(tally: Tally) -> dict[int, float]:
    """The estimated accuracy of each annotator who made a choice."""
    votes, gold = tally.votes, tally.gold_votes
    shift = len(votes.pairs)
    pairs = np.array([*votes.pair, *(number + shift for number in gold.pair)], dtype=np.int64)
    who = np.array([*votes.annotator, *gold.annotator], dtype=np.int64)
    labels = np.array([*votes.label, *gold.label], dtype=np.int64)
    known = {number + shift: label for number, label in tally.gold_truth.items()}
    accuracy = estimate(pairs, who, labels, known).accuracy
    return {number: float(accuracy[number]) for number in sorted(set(who.tolist()))}


def _windows(tally: Tally, evidence: Evidence, window_us: int) -> list[preference_v1.QualityWindow]:
    votes = tally.votes
    names = list(votes.pairs)
    times: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for entry in tally.times:
        times[entry[0] // window_us].append(entry)
    chosen: dict[int, list[int]] = defaultdict(list)
    for place, created_us in enumerate(votes.created_us):
        chosen[created_us // window_us].append(place)
    found = []
    for number, entries in sorted(times.items()):
        places = chosen.get(number, [])
        units: dict[int, list[int]] = defaultdict(list)
        longer = []
        for place in places:
            units[votes.pair[place]].append(votes.label[place])
            first, second = (evidence.lengths.get(name, 0) for name in names[votes.pair[place]])
            if votes.label[place] != TIE and first != second:
                longer.append((first > second) == (votes.label[place] == FIRST))
        timed = [elapsed for _, _, elapsed in entries if elapsed >= 0]
        found.append(
            preference_v1.QualityWindow(
                start_time=converters.timestamp(number * window_us),
                judgements=len(entries),
                annotators=len({who for _, who, _ in entries}),
                alpha=krippendorff.nominal(units.values()),
                tie_rate=_mean([votes.label[place] == TIE for place in places]),
                longer_rate=_mean(longer),
                median_seconds=_seconds(median(timed) if timed else None),
            )
        )
    return found


def _drift(agreed: Sequence[bool]) -> float | None:
    half = len(agreed) // 2
    if half < LEAST_HALF:
        return None
    return sum(agreed[-half:]) / half - sum(agreed[:half]) / half


def _mean(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _seconds(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1e6
