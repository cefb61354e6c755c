"""The seam for scorers: what one is, what it is given and what it gives back.

A third party writes a class like this and names it in an entry point of group `accord.scorers`:

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
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from accord.types import v1 as types_v1

if TYPE_CHECKING:
    from accord_reward.inference import RewardModel

GROUP = "accord.scorers"
SCORER_FAILED = "SCORER_FAILED"


@dataclass(frozen=True)
class Item:
    """One response to score. `truncated`: it was cut off at its limit of tokens instead of ending by itself."""

    prompt: types_v1.Conversation
    response: str
    truncated: bool = False

    @property
    def messages(self) -> list[dict[str, str]]:
        """The prompt as plain data, oldest turn first: `[{"role": "user", "content": "..."}]`."""
        return [{"role": message.role, "content": message.content} for message in self.prompt.messages]


@dataclass(frozen=True)
class ItemFailure:
    """Why one item has no score. Never a zero: the caller retries it, or drops and counts it."""

    message: str
    reason: str = SCORER_FAILED
    retryable: bool = False


Outcome = float | ItemFailure


class Options(BaseModel):
    """Base of a scorer's options: unknown names and wrong types are refused with the field named."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class ScorerContext:
    """What a scorer may use of the service.

    `model` is the loaded reward model that the ScorerSpec names; `compute` runs one piece of heavy work at a time, so
    that scorers do not fight for the same cores; `max_batch_tokens` bounds one forward pass, padding included.
    """

    model: RewardModel | None
    compute: Executor
    max_batch_tokens: int


class Scorer(Protocol):
    """Gives each item a finite number, or says why it has none. One instance serves many callers, a batch at a time."""

    description: ClassVar[str]
    """One sentence, shown by ListScorers."""
    options_type: ClassVar[type[BaseModel]] = Options
    """The model of its options; its JSON schema is published."""
    uses_model: ClassVar[bool] = False
    """Whether `model_digest` may be set; naming one for a scorer that ignores it is refused."""

    def __init__(self, options: Any, context: ScorerContext) -> None:
        """Takes checked options. Raises accord.errors where it cannot work with them."""
        ...

    async def score(self, items: Sequence[Item]) -> Sequence[Outcome]:
        """One outcome per item, in order. Items of several callers may come together; none may influence another.

        Blocking work belongs in a thread (`asyncio.to_thread` or `context.compute`). When it raises, it is asked again
        item by item, so that only the items at fault fail.
        """
        ...
