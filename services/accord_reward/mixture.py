"""The weighted mixture of scorers: total = sum over parts of weight * (raw - shift) / scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from accord_reward.scorer import ItemFailure, Outcome


@dataclass(frozen=True)
class Part:
    """A scorer's part in the mixture. `shift`, `scale`: mean and deviation of its raw score on reference samples."""

    name: str
    weight: float = 1.0
    shift: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class Contribution:
    """The score of one scorer (`raw`) and its contribution (`weighted`)."""

    name: str
    raw: float
    weighted: float


@dataclass(frozen=True)
class Mixed:
    """A finite score and its breakdown, one contribution per part, in order; `value` is the sum of `weighted`."""

    value: float
    parts: tuple[Contribution, ...]


def mix(parts: Sequence[Part], raws: Sequence[Outcome]) -> Mixed | ItemFailure:
    """The mixture for one item. It fails if any part failed: a sum without that part would be a different score."""
    failed = [raw for raw in raws if isinstance(raw, ItemFailure)]
    if failed:
        return ItemFailure(
            "; ".join(failure.message for failure in failed),
            reason=failed[0].reason,
            retryable=all(failure.retryable for failure in failed),
        )
    contributions = tuple(
        Contribution(part.name, float(raw), part.weight * (float(raw) - part.shift) / part.scale)
        for part, raw in zip(parts, raws, strict=True)
        if not isinstance(raw, ItemFailure)
    )
    value = sum(contribution.weighted for contribution in contributions)
    if not math.isfinite(value):
        return ItemFailure(f"the mixture is {value}; a weight, shift or scale takes it out of range")
    return Mixed(value, contributions)
