"""A learned reward model: the number that a sequence classifier gives to the whole conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from accord.errors import InvalidArgument
from accord_reward.scorer import Item, Options, Outcome, Scorer, ScorerContext


class ModelOptions(Options):
    """How the model reads."""

    max_length: int | None = Field(
        None,
        ge=1,
        description="Tokens of conversation and response that are read, the last ones; unset: what the model can.",
    )
    member: int | None = Field(
        None, ge=0, description="Of an ensemble: the score of this member alone, from 0; unset: the mean of all."
    )


class ModelScorer(Scorer):
    """The output of the loaded reward model that `model_digest` names, at the last token of prompt and response.

    The conversation with the response as its last turn is rendered by the model's own chat template and tokenised by
    its own tokenizer. What is longer than `max_length` loses its beginning and keeps its end: the response is read.
    """

    description: ClassVar[str] = "A trained reward model (model_digest, put into service by LoadModel)."
    options_type: ClassVar[type[Options]] = ModelOptions
    uses_model: ClassVar[bool] = True

    def __init__(self, options: ModelOptions, context: ScorerContext) -> None:
        if context.model is None:
            raise InvalidArgument.at("model_digest", "must be set: which of the loaded reward models")
        if options.member is not None and options.member >= context.model.members:
            raise InvalidArgument.at(
                "options.member", f"is {options.member}; the reward model has {context.model.members} members"
            )
        self._model = context.model
        self._options = options
        self._context = context

    async def score(self, items: Sequence[Item]) -> Sequence[Outcome]:
        """Raw model outputs, unbounded; a failure for a conversation that the model's chat template refuses."""
        return await asyncio.get_running_loop().run_in_executor(
            self._context.compute,
            self._model.score,
            items,
            self._context.max_batch_tokens,
            self._options.max_length,
            self._options.member,
        )
