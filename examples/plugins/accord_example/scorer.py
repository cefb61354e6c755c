"""A scorer: a number for each response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from accord_reward.scorer import Item, Options, Outcome, Scorer, ScorerContext


class ExclamationOptions(Options):
    """Unknown names and values out of range are refused, with the field named."""

    most: int = Field(3, ge=1, description="Further exclamation marks do not count.")


class Exclamations(Scorer):
    """The share of `most` exclamation marks that the response has."""

    description: ClassVar[str] = "Exclamation marks of the response, from 0 (none) to 1 (`most` or more)."
    options_type = ExclamationOptions

    def __init__(self, options: ExclamationOptions, context: ScorerContext) -> None:
        self._most = options.most

    async def score(self, items: Sequence[Item]) -> Sequence[Outcome]:
        # One outcome per item, in order. An item that cannot be scored gets an accord_reward.scorer.ItemFailure: the
        # caller drops and counts it; it never becomes a zero.
        return [min(item.response.count("!"), self._most) / self._most for item in items]
