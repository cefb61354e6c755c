"""A trained reward model: the score that a sequence classifier gives to the whole conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from accord.errors import InvalidArgument
from accord_reward.scorer import Item, Options, Outcome, Scorer, ScorerContext


class ModelOptions(Options):
    """The input of the model, and the member of an ensemble that scores."""

    max_length: int | None = Field(
        None,
        ge=1,
        description="Number of tokens that are read, from the end of the conversation; unset: as many as possible.",
    )
    member: int | None = Field(
        None, ge=0, description="Use only the score of this member of an ensemble, from 0; unset: the mean of all."
    )


class ModelScorer(Scorer):
    """The output of the loaded reward model that `model_digest` names, at the last token of prompt and response.

    The model's own chat template renders the conversation with the response as its last turn, and its own tokenizer
    tokenises it. A text longer than `max_length` loses its beginning, so that the response is always read.
    """

    description: ClassVar[str] = "A trained reward model: model_digest, loaded by LoadModel."
    options_type: ClassVar[type[Options]] = ModelOptions
    uses_model: ClassVar[bool] = True

    def __init__(self, options: ModelOptions, context: ScorerContext) -> None:
        if context.model is None:
            raise InvalidArgument.at("model_digest", "must be set to the digest of a loaded reward model")
        if options.member is not None and options.member >= context.model.members:
            raise InvalidArgument.at(
                "options.member", f"is {options.member}; the reward model has {context.model.members} members"
            )
        self._model = context.model
        self._options = options
        self._context = context

    async def score(self, items: Sequence[Item]) -> Sequence[Outcome]:
        """Raw, unbounded model outputs; a failure for a conversation that the model's chat template refuses."""
        return await asyncio.get_running_loop().run_in_executor(
            self._context.compute,
            self._model.score,
            items,
            self._context.max_batch_tokens,
            self._options.max_length,
            self._options.member,
        )
