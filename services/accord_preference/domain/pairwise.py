"""Judgements as choices between two completions, the basis of agreement and reliability."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from accord.preference import v1 as preference_v1

FIRST, SECOND, TIE = 0, 1, 2
Pair = tuple[str, str]


def choices(kind: int, value: dict[str, Any]) -> Iterator[tuple[Pair, int]]:
    """(pair of completion ids in order of id, FIRST, SECOND or TIE) for each pair that a judgement compares.

    A comparison gives one choice, a ranking of K completions K * (K - 1) / 2, and a rating none. `value`: the canonical
    form.
    """
    if kind == preference_v1.TASK_KIND_COMPARISON:
        yield _choice(value["chosen_id"], value["rejected_id"], bool(value["tie"]))
    elif kind == preference_v1.TASK_KIND_RANKING:
        placed = [(name, place) for place, names in enumerate(value["ranks"]) for name in names]
        for (better, place), (worse, below) in combinations(placed, 2):
            yield _choice(better, worse, place == below)


def _choice(better: str, worse: str, tie: bool) -> tuple[Pair, int]:
    first, second = sorted((better, worse))
    return (first, second), TIE if tie else FIRST if better == first else SECOND


def scaled(rating: dict[str, Any]) -> float:
    """A rating on the scale 0 to 1."""
    return float((rating["value"] - rating["min"]) / (rating["max"] - rating["min"]))


def is_right(kind: int, value: dict[str, Any], known: dict[str, Any]) -> bool:
    """Whether a judgement agrees with the known answer of its gold task (`value`, `tolerance`) in every pair."""
    expected = known["value"]
    if kind == preference_v1.TASK_KIND_RATING:
        tolerance = known["tolerance"]
        if tolerance is None:
            tolerance = (expected["max"] - expected["min"]) / 10
        # On the scale of the known answer, in case the annotator's tool used a different scale.
        given = expected["min"] + scaled(value) * (expected["max"] - expected["min"])
        return bool(abs(given - expected["value"]) <= tolerance + 1e-9)
    return dict(choices(kind, value)) == dict(choices(kind, expected))
