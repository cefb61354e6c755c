"""The seam of the rollout service: the interface of an engine. Plug-ins add engines by entry point, group
`accord.engines`.

The entry point names a callable that takes RolloutSettings and returns an Engine. The handler implements
everything that is common to all engines: leases, versions, seeds, queue, failures, messages. No torch here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from accord.types import v1 as types_v1

if TYPE_CHECKING:
    from accord_rollout.settings import RolloutSettings


class Finish(Enum):
    """Why a response ended: its last token is an end-of-sequence token, or it reached max_new_tokens."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled: softmax(logits / temperature), cut to `top_k` tokens, then to the nucleus `top_p`.

    temperature 0 is greedy, its logprobs those of softmax(logits). top_k 0 and top_p 1 are off.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True)
class Job:
    """One sample to generate. Only `seed` (64 bits) determines the random numbers of its tokens."""

    index: int
    prompt_token_ids: tuple[int, ...]
    seed: int


@dataclass(frozen=True)
class Weights:
    """The weights in a folder: their version and their SHA-256 (accord.digest.weights_digest)."""

    version: int
    digest: str


@dataclass(frozen=True)
class WeightSpan:
    """Tokens from `start` (an index into the response) up to the next span were sampled with `weights`."""

    start: int
    weights: Weights


@dataclass(frozen=True)
class Completion:
    """One finished response, at least one token; logprobs: nats, under the sampled distribution, one per token.

    `spans`: which weights sampled which tokens, the first span from 0. Empty: the weights that were active when
    `generate` was called sampled all of them. An engine that updates in flight always fills it in.
    """

    index: int
    response_token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    spans: tuple[WeightSpan, ...] = ()


@dataclass(frozen=True)
class Failed:
    """A sample that could not be generated. `reason` is UPPER_SNAKE_CASE; `message` is for people."""

    index: int
    reason: str
    message: str
    retryable: bool = False


@dataclass(frozen=True)
class ResidentWeights:
    """The weights in an engine's memory after activation. A field that the engine cannot determine stays empty.

    digest: recomputed over the tensors that it computes with, so equal to the published one; empty if the engine
    fuses, repacks or rounds them. checksum: of the layout in memory; the same weights give the same checksum on the
    same machine with the same settings, however they were loaded. probe_logprobs: nats, of PROBE_TOKENS from the second
    on, each given those before it.
    """

    digest: str = ""
    checksum: str = ""
    probe_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class ModelInfo:
    """An engine's description of the active model."""

    tokenizer_fingerprint: str
    max_context_tokens: int  # prompt plus response
    vocabulary_size: int  # token ids are below it


# Every engine computes the log-probabilities of these tokens after activation. Any vocabulary has these ids.
PROBE_TOKENS = tuple(range(3, 19))

Activate = Callable[[], Awaitable[ModelInfo]]


class Engine(Protocol):
    """Generates with one model at a time. The handler lets `generate` and an `Activate` overlap only if the engine
    `updates_in_flight`.

    Two members are optional. `gpus()` returns the ids of the GPUs that processes other than the service hold for the
    engine, as `accord_models.gpus` names them. If the attribute `can_prepare_unverified` is true, `prepare` only reads
    into memory and has no lasting effect. It may then run while the folder is still being verified, and its result is
    discarded if the verification fails."""

    @property
    def compute_dtype(self) -> str:
        """`float32` or `bfloat16`."""

    @property
    def compute_threads(self) -> int:
        """The number of threads that it computes with."""

    @property
    def max_concurrent_requests(self) -> int:
        """The maximum number of concurrent `generate` calls; 1 if requests must never be mixed."""

    @property
    def updates_in_flight(self) -> bool:
        """Whether an Activate may run during `generate`: the samples pause, then continue with the new weights, and
        `Completion.spans` records it. False: the handler waits until no `generate` runs."""

    async def prepare(self, folder: Path, weights: Weights) -> Activate:
        """Reads and checks the model folder while the old model continues to generate; the result activates it.

        Everything that can fail belongs here: AccordError (BAD_MODEL, BAD_TOKENIZER) leaves the old model unchanged. An
        Activate that fails leaves the engine without a model. Several may be prepared; each is called once or never.
        """

    async def resident_weights(self) -> ResidentWeights:
        """The weights in memory. Called once after each activation, when `generate` may already run; no sample leaves
        the service before it returns."""

    def render(self, conversation: types_v1.Conversation) -> list[int]:
        """Token ids of the conversation, generation prompt added. InvalidArgument if the template refuses it.

        May run on any thread.
        """

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of a response, without special tokens."""

    def generate(self, jobs: Sequence[Job], sampling: Sampling) -> AsyncGenerator[Completion | Failed, None]:
        """One result per job, in any order, as they finish. Closing the iterator stops generation soon.

        The same jobs, sampling and weights give the same results.
        """

    async def close(self) -> None:
        """Stops the engine and abandons the samples that it is generating."""


EngineFactory = Callable[["RolloutSettings"], Engine]
