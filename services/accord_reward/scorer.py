"""The seam for scorers: the interface of a scorer, its input and its output.

To add a scorer, write a class like this and register it as an entry point of group `accord.scorers`:

    class Shouting(Scorer):
        description = "1 for each exclamation mark."

        def __init__(self, options: Options, context: ScorerContext) -> None: ...

        async def score(self, items: Sequence[Item]) -> Sequence[Outcome]:
            return [float(item.response.count("!")) for item in items]
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from accord.types import v1 as types_v1

GROUP = "accord.scorers"
SCORER_FAILED = "SCORER_FAILED"


@dataclass(frozen=True)
class Item:
    """One response to score. `truncated`: it was cut off at its token limit before it ended."""

    prompt: types_v1.Conversation
    response: str
    truncated: bool = False

    @property
    def messages(self) -> list[dict[str, str]]:
        """The prompt as plain data, oldest turn first: `[{"role": "user", "content": "..."}]`."""
        return [{"role": message.role, "content": message.content} for message in self.prompt.messages]


@dataclass(frozen=True)
class ItemFailure:
    """Why one item has no score. It never becomes a zero: the caller retries the item, or drops and counts it."""

    message: str
    reason: str = SCORER_FAILED
    retryable: bool = False


Outcome = float | ItemFailure


class Options(BaseModel):
    """Base of a scorer's options: unknown names and wrong types are refused, naming the field."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RewardModelHandle(Protocol):
    """The part of a loaded reward model that scorers use. Not thread-safe: call it only on `ScorerContext.compute`."""

    @property
    def members(self) -> int:
        """The number of models in the ensemble; 1 for a plain reward model."""
        ...

    @property
    def max_tokens(self) -> int:
        """The maximum number of tokens of a conversation that it reads."""
        ...

    def score(
        self, items: Sequence[Item], max_batch_tokens: int, max_length: int | None = None, member: int | None = None
    ) -> list[Outcome]:
        """One raw score per item, in order, from its last `max_length` tokens: the ensemble's mean, or one `member`'s.

        A failure for an item whose conversation the model's chat template refuses.
        """
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, without special tokens."""
        ...


@dataclass(frozen=True)
class ScorerContext:
    """The parts of the service that a scorer may use.

    `model` is the loaded reward model that the ScorerSpec names. `compute` runs one heavy task at a time, so that
    scorers do not compete for the same cores. `max_batch_tokens` limits one forward pass, padding included.
    """

    model: RewardModelHandle | None
    compute: Executor
    max_batch_tokens: int


class Scorer(Protocol):
    """Gives each item a finite number, or a failure with a reason. One instance serves the batches of many callers."""

    description: ClassVar[str]
    """One sentence, shown by ListScorers."""
    options_type: ClassVar[type[BaseModel]] = Options
    """The model of its options, whose JSON schema is published."""
    uses_model: ClassVar[bool] = False
    """Whether `model_digest` may be set. If it is set for a scorer that has no use for it, the request is refused."""

    def __init__(self, options: Any, context: ScorerContext) -> None:
        """Takes validated options. Raises an error of accord.errors if it cannot work with them."""
        ...

    async def score(self, items: Sequence[Item]) -> Sequence[Outcome]:
        """One outcome per item, in order. A batch may contain items of several callers; none may influence another.

        Blocking work belongs in a thread (`asyncio.to_thread` or `context.compute`). If it raises, it is called again
        item by item, so that only the items at fault fail.
        """
        ...
