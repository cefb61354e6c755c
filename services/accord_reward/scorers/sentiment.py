"""Scores how positive a response reads, by a word list: VADER (Hutto and Gilbert, 2014)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

from accord_reward.scorer import Item, Options, Outcome, Scorer, ScorerContext


class SentimentScorer(Scorer):
    """VADER's compound score of the response, in [-1, 1]; 0 for a text without a word from the list, or no text.

    A known, cheap score that a policy can learn in minutes; the demo's simulated annotators judge by it.
    """

    description: ClassVar[str] = "VADER compound sentiment of the response, from -1 (negative) to 1 (positive)."

    def __init__(self, options: Options, context: ScorerContext) -> None:
        """There are no options."""

    async def score(self, items: Sequence[Item]) -> Sequence[Outcome]:
        """Compound scores, each in [-1, 1]."""
        return await asyncio.to_thread(lambda: [_compound(item.response) for item in items])


def _compound(text: str) -> float:
    return float(_analyzer().polarity_scores(text)["compound"])


@cache
def _analyzer() -> Any:
    # Reading the word list takes a while, so it waits for the first use.
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
