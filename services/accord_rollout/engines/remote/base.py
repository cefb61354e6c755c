"""What the engines for other people's servers share: the tokenizer here, the model there, one call for each sample."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from accord.errors import AccordError, DeadlineExceeded, FailedPrecondition, Internal, ResourceExhausted, Unavailable
from accord.types import v1 as types_v1
from accord_models.loading import load_config
from accord_models.tokenizer import fingerprint, load_tokenizer, render
from accord_rollout.engine import (
    Activate,
    Completion,
    Failed,
    Finish,
    Job,
    ModelInfo,
    ResidentWeights,
    Sampling,
    Weights,
)
from accord_rollout.engines.finishing import as_finished
from accord_rollout.engines.remote.http import Server, ServerOptions
from accord_rollout.engines.transformers.generation import stop_tokens
from accord_rollout.settings import RolloutSettings

_RETRYABLE = (DeadlineExceeded, ResourceExhausted, Unavailable)


@dataclass(frozen=True)
class Loaded:
    """The model in force, as far as this side needs it."""

    tokenizer: PreTrainedTokenizerBase
    stop_ids: tuple[int, ...]


class ServedEngine(ABC):
    """One HTTP call for each sample: the server batches across callers. Weights change between requests only, because
    the answers do not say which weights drew which token."""

    updates_in_flight = False

    def __init__(self, settings: RolloutSettings, options: ServerOptions) -> None:
        # What the server computes with it does not say; recorded is what the settings claim.
        self.compute_dtype = "" if settings.dtype == "auto" else settings.dtype
        self.compute_threads = settings.threads
        self.max_concurrent_requests = options.max_connections
        self.options = options
        self.server = Server(options)
        self._loaded: Loaded | None = None

    async def prepare(self, folder: Path, weights: Weights) -> Activate:
        """Asks the server whether it can do what samples need, and how it can have these weights.

        FailedPrecondition says what it lacks: then its samples are not fit for training, and it is refused.
        """
        tokenizer, config = await asyncio.to_thread(lambda: (load_tokenizer(folder), load_config(folder)))
        limit = await self.check(folder, weights)
        new = Loaded(tokenizer, stop_tokens(folder, config, tokenizer))

        async def activate() -> ModelInfo:
            await self.put_in_force(folder, weights)
            self._loaded = new
            return ModelInfo(
                tokenizer_fingerprint=fingerprint(tokenizer),
                max_context_tokens=limit,
                vocabulary_size=int(config.get_text_config().vocab_size),
            )

        return activate

    def render(self, conversation: types_v1.Conversation) -> list[int]:
        """By the model's chat template."""
        return render(self._in_force().tokenizer, conversation)

    def decode(self, token_ids: Sequence[int]) -> str:
        """By the model's tokenizer."""
        return str(self._in_force().tokenizer.decode(list(token_ids), skip_special_tokens=True))

    async def generate(self, jobs: Sequence[Job], sampling: Sampling) -> AsyncGenerator[Completion | Failed, None]:
        """Closing the iterator closes the connections of calls in work, on which servers stop working."""
        loaded = self._in_force()
        self.check_sampling(sampling)
        places = asyncio.Semaphore(self.options.max_connections)

        async def draw(job: Job) -> Completion | Failed:
            async with places:
                return await self._draw(loaded, job, sampling)

        async with aclosing(as_finished(jobs, draw, set())) as results:
            async for result in results:
                yield result

    async def close(self) -> None:
        """Closes the connections; the server goes on."""
        await self.server.close()

    @abstractmethod
    async def check(self, folder: Path, weights: Weights) -> int:
        """The most tokens that prompt and response may have; FailedPrecondition says what the server lacks."""

    @abstractmethod
    async def put_in_force(self, folder: Path, weights: Weights) -> None:
        """Makes the server serve these weights, where it does not do so already."""

    @abstractmethod
    async def held(self) -> ResidentWeights:
        """What the server says of the weights that it holds."""

    @abstractmethod
    def check_sampling(self, sampling: Sampling) -> None:
        """FailedPrecondition where the server's logprobs would not be those of the sampled distribution."""

    @abstractmethod
    async def ask(self, loaded: Loaded, job: Job, sampling: Sampling) -> Completion | Failed:
        """One sample."""

    async def _draw(self, loaded: Loaded, job: Job, sampling: Sampling) -> Completion | Failed:
        try:
            return await self.ask(loaded, job, sampling)
        except AccordError as error:
            return Failed(job.index, error.reason, error.message, retryable=isinstance(error, _RETRYABLE))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            wrong = Internal(f"{self.server.url} answered something else than its protocol: {error!r}")
            return Failed(job.index, "SERVER_ANSWER", wrong.message)

    def _in_force(self) -> Loaded:
        if self._loaded is None:
            raise FailedPrecondition("no weights yet: call UpdateWeights first", reason="NO_WEIGHTS")
        return self._loaded


def finished(job: Job, tokens: Sequence[int], logprobs: Sequence[Any], reason: Any) -> Completion | Failed:
    """A checked sample. `reason`: the server's word for why it ended, `stop` or `length`."""
    numbers = [float(value) if isinstance(value, int | float) else float("nan") for value in logprobs]
    if reason not in ("stop", "length") or not tokens or len(numbers) != len(tokens):
        return Failed(
            job.index, "SERVER_ANSWER", f"{len(tokens)} tokens, {len(numbers)} logprobs, ended by {reason!r}", True
        )
    # JSON has no NaN: servers write the sentinel -9999, or nothing, for what is not a number.
    if not all(-9999 < number < 1e-3 for number in numbers):
        return Failed(
            job.index, "NON_FINITE_LOGITS", "the model's logits are not finite numbers: its weights are broken"
        )
    return Completion(
        job.index,
        tuple(tokens),
        tuple(min(number, 0.0) for number in numbers),
        Finish.STOP if reason == "stop" else Finish.LENGTH,
    )


def seed_of(job: Job) -> int:
    """The job's seed without its highest bit: what every server takes."""
    return job.seed & (2**63 - 1)
