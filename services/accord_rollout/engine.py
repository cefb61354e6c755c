"""The seam of the rollout service: what an engine is. Third parties add one by entry point, group `accord.engines`.

The entry point names a callable that takes RolloutSettings and returns an Engine. The handler does everything that is
the same for all engines: leases, versions, seeds, queue, failures, messages. No torch here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from accord.types import v1 as types_v1

if TYPE_CHECKING:
    from accord_rollout.settings import RolloutSettings


class Finish(Enum):
    """Why a response ended: the model said so (its last token is an end-of-sequence token), or max_new_tokens."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: softmax(logits / temperature), cut to `top_k` tokens, then to the nucleus `top_p`.

    temperature 0 is greedy, its logprobs those of softmax(logits). top_k 0 and top_p 1 are off.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True)
class Job:
    """One sample to make. `seed` (64 bits) alone decides the random numbers of its tokens."""

    index: int
    prompt_token_ids: tuple[int, ...]
    seed: int


@dataclass(frozen=True)
class Weights:
    """Which weights a folder holds: the version that they have and their SHA-256 (accord.digest.weights_digest)."""

    version: int
    digest: str


@dataclass(frozen=True)
class WeightSpan:
    """Tokens from `start` (an index into the response) up to the next span were drawn with `weights`."""

    start: int
    weights: Weights


@dataclass(frozen=True)
class Completion:
    """One finished response, at least one token; logprobs: nats, under the sampled distribution, one a token.

    `spans`: which weights drew what, the first from 0. Empty: all by those in force when `generate` was called; an
    engine that updates in flight always says.
    """

    index: int
    response_token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    spans: tuple[WeightSpan, ...] = ()


@dataclass(frozen=True)
class Failed:
    """A sample that could not be made: reason UPPER_SNAKE_CASE, message for people."""

    index: int
    reason: str
    message: str
    retryable: bool = False


@dataclass(frozen=True)
class ResidentWeights:
    """What an engine found in its own memory after activation; what it cannot tell is empty.

    digest: recomputed over the tensors it computes with, so equal to the published one; empty where it fuses, repacks
    or rounds them. checksum: of its own layout, the same for the same weights loaded by whatever way, on the same
    machine and settings. probe_logprobs: nats, of PROBE_TOKENS from the second on, each after those before it.
    """

    digest: str = ""
    checksum: str = ""
    probe_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class ModelInfo:
    """What an engine says about the model in force."""

    tokenizer_fingerprint: str
    max_context_tokens: int  # prompt plus response
    vocabulary_size: int  # token ids are below it


# What every engine is asked after activation: ids that any vocabulary has.
PROBE_TOKENS = tuple(range(3, 19))

Activate = Callable[[], Awaitable[ModelInfo]]


class Engine(Protocol):
    """Generates with one model at a time. The handler lets `generate` and an `Activate` overlap only where the engine
    says that it can."""

    @property
    def compute_dtype(self) -> str:
        """`float32` or `bfloat16`."""

    @property
    def compute_threads(self) -> int:
        """Threads it computes with."""

    @property
    def max_concurrent_requests(self) -> int:
        """How many `generate` calls it wants at once; 1 where a request must never be mixed with another."""

    @property
    def updates_in_flight(self) -> bool:
        """Whether an Activate may come while samples are being drawn: they wait, and go on with the new weights;
        `Completion.spans` tells. False: the handler waits until no `generate` runs."""

    async def prepare(self, folder: Path, weights: Weights) -> Activate:
        """Reads and checks the model folder while the old model goes on generating; the result puts it in force.

        All that can fail belongs here: AccordError (BAD_MODEL, BAD_TOKENIZER) leaves the old model as it is. An
        Activate that fails leaves the engine without a model. Several may be prepared; each is called once or never.
        Of an engine with a true attribute `reads_aside` it only reads into memory and leaves nothing behind:
        it may be called while the folder is still being verified, and what it read is dropped where that fails.
        """

    async def held(self) -> ResidentWeights:
        """What it finds in its memory; called once after each activation, while `generate` may run already. No sample
        leaves the service before the answer."""

    def render(self, conversation: types_v1.Conversation) -> list[int]:
        """Token ids of the conversation, generation prompt added. InvalidArgument where the template refuses it.

        May run on any thread.
        """

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of a response, special tokens left out."""

    def generate(self, jobs: Sequence[Job], sampling: Sampling) -> AsyncGenerator[Completion | Failed, None]:
        """One result for each job, in any order, as they finish. Closing the iterator stops the work soon.

        The same jobs, sampling and weights give the same results.
        """

    async def close(self) -> None:
        """Ends the engine; work in hand is given up."""


@runtime_checkable
class HoldingGpus(Protocol):
    """An engine adds this when other processes than the service's hold its GPUs."""

    def gpus(self) -> Sequence[str]:
        """Ids of the GPUs that it holds now, as `accord_models.gpus` gives them."""


EngineFactory = Callable[["RolloutSettings"], Engine]
