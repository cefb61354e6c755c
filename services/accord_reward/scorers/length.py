"""Scores the length of a response, or its distance from a target length."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from accord.errors import InvalidArgument
from accord_reward.scorer import Item, Options, Outcome, Scorer, ScorerContext


class LengthOptions(Options):
    """With n the length of the response in `unit`:

    - no other option: raw = n (a negative weight makes it a penalty on length);
    - `target`: raw = -|n - target| / target, so 0 at the target, -1 for an empty response and at twice the target;
    - `min`, `max` or both: raw = 0 between them, -(min - n) / min below, -(n - max) / max above.
    """

    unit: Literal["characters", "words", "tokens"] = Field(
        "characters", description="The unit; tokens are those of the model that model_digest names."
    )
    target: int | None = Field(None, ge=1, description="The length that scores 0; other lengths score below 0.")
    min: int | None = Field(None, ge=1, description="Shorter responses score below 0.")
    max: int | None = Field(None, ge=1, description="Longer responses score below 0.")

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.target is not None and (self.min is not None or self.max is not None):
            raise ValueError("set either target, or min and max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    def raw(self, length: int) -> float:
        """The score of a response of this length, by the formulas above."""
        low, high = self.min or self.target, self.max or self.target
        if low is not None and length < low:
            return -(low - length) / low
        if high is not None and length > high:
            return -(length - high) / high
        return 0.0 if low or high else float(length)


class LengthScorer(Scorer):
    """Scores only by length, with the formulas of `LengthOptions`."""

    description: ClassVar[str] = (
        "Length of the response; or 0 at the target length (target, or min to max) and minus the relative difference."
    )
    options_type: ClassVar[type[Options]] = LengthOptions
    uses_model: ClassVar[bool] = True

    def __init__(self, options: LengthOptions, context: ScorerContext) -> None:
        if (options.unit == "tokens") != (context.model is not None):
            raise InvalidArgument.at(
                "model_digest",
                "must name the model whose tokenizer counts if unit is tokens, and must be empty otherwise",
            )
        self._options = options
        self._context = context

    async def score(self, items: Sequence[Item]) -> Sequence[Outcome]:
        """One number per item; at most 0 if a length is set."""
        if (model := self._context.model) is None:
            count = len if self._options.unit == "characters" else _words
            return [self._options.raw(count(item.response)) for item in items]
        loop = asyncio.get_running_loop()
        texts = [item.response for item in items]
        lengths = await loop.run_in_executor(self._context.compute, model.count_tokens, texts)
        return [self._options.raw(length) for length in lengths]


def _words(text: str) -> int:
    return len(text.split())
