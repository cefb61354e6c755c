"""Calls a scorer defensively: exceptions, wrong counts and numbers that are not finite become failures."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import SupportsFloat

from accord.errors import AccordError
from accord_reward.scorer import Item, ItemFailure, Outcome, Scorer

log = logging.getLogger(__name__)


async def score_checked(name: str, scorer: Scorer, items: Sequence[Item]) -> list[Outcome]:
    """One outcome per item: a finite float or a failure, never an exception.

    A scorer that raises on several items is called again for each item alone, so that a bad item fails no other item.
    """
    try:
        return _checked(name, await scorer.score(items), len(items))
    except Exception as error:
        log.warning("scorer %s raised on a batch of %d items", name, len(items), exc_info=True)
        if len(items) == 1:
            return [_failure(name, error)]
    return [outcome for item in items for outcome in await score_checked(name, scorer, [item])]


def checked_number(name: str, raw: object) -> Outcome:
    """`raw` as a finite float (numpy and torch scalars and bools count), or a failure that describes the value."""
    if isinstance(raw, ItemFailure):
        return raw
    if not isinstance(raw, SupportsFloat):
        return ItemFailure(f"scorer {name} returned {type(raw).__name__}, not a number")
    value = float(raw)
    if not math.isfinite(value):
        return ItemFailure(f"scorer {name} returned {value}, which is not a finite number")
    return value


def _checked(name: str, raws: Sequence[object], expected: int) -> list[Outcome]:
    if len(raws) != expected:
        raise ValueError(f"{name} returned {len(raws)} scores for {expected} items")
    return [checked_number(name, raw) for raw in raws]


def _failure(name: str, error: Exception) -> ItemFailure:
    if isinstance(error, AccordError):
        return ItemFailure(f"scorer {name}: {error.message}", reason=error.reason)
    # System errors (a network, a file, a time limit) may be transient; errors in the code are not.
    retryable = isinstance(error, OSError | TimeoutError)
    return ItemFailure(f"scorer {name} failed: {type(error).__name__}: {error}", retryable=retryable)
