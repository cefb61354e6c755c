"""The base of the engines for remote servers: the tokenizer is local, the model remote, each sample is one call."""

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
from accord_models.loading import load_config, stop_tokens
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
from accord_rollout.engines.concurrent import as_finished
from accord_rollout.engines.remote.http import Server, ServerOptions
from accord_rollout.settings import RolloutSettings

_RETRYABLE = (DeadlineExceeded, ResourceExhausted, Unavailable)


@dataclass(frozen=True)
class ActiveModel:
    """The local part of the active model."""

    tokenizer: PreTrainedTokenizerBase
    stop_ids: tuple[int, ...]


class RemoteEngine(ABC):
    """One HTTP call per sample; the server batches across callers. Weights change only between requests, because the
    responses do not report which weights sampled which token."""

    updates_in_flight = False

    def __init__(self, settings: RolloutSettings, options: ServerOptions) -> None:
        # The server does not report its number type, so the configured type is recorded.
        self.compute_dtype = "" if settings.dtype == "auto" else settings.dtype
        self.compute_threads = settings.threads
        self.max_concurrent_requests = options.max_connections
        self.options = options
        self.server = Server(options)
        self._active: ActiveModel | None = None

    async def prepare(self, folder: Path, weights: Weights) -> Activate:
        """Checks that the server returns what training needs and can serve these weights.

        FailedPrecondition names the missing feature: without it, the samples would be unfit for training.
        """
        tokenizer, config = await asyncio.to_thread(lambda: (load_tokenizer(folder), load_config(folder)))
        limit = await self.check(folder, weights)
        new = ActiveModel(tokenizer, stop_tokens(folder, config, tokenizer))

        async def activate() -> ModelInfo:
            await self.activate(folder, weights)
            self._active = new
            return ModelInfo(
                tokenizer_fingerprint=fingerprint(tokenizer),
                max_context_tokens=limit,
                vocabulary_size=int(config.get_text_config().vocab_size),
            )

        return activate

    def render(self, conversation: types_v1.Conversation) -> list[int]:
        """By the model's chat template."""
        return render(self._require_active().tokenizer, conversation)

    def decode(self, token_ids: Sequence[int]) -> str:
        """By the model's tokenizer."""
        return str(self._require_active().tokenizer.decode(list(token_ids), skip_special_tokens=True))

    async def generate(self, jobs: Sequence[Job], sampling: Sampling) -> AsyncGenerator[Completion | Failed, None]:
        """Closing the iterator closes the connections of running calls, which makes servers stop generating."""
        model = self._require_active()
        self.check_sampling(sampling)
        connections = asyncio.Semaphore(self.options.max_connections)

        async def generate_one(job: Job) -> Completion | Failed:
            async with connections:
                return await self._generate_one(model, job, sampling)

        async with aclosing(as_finished(jobs, generate_one, set())) as results:
            async for result in results:
                yield result

    async def close(self) -> None:
        """Closes the connections; the server keeps running."""
        await self.server.close()

    @abstractmethod
    async def check(self, folder: Path, weights: Weights) -> int:
        """Returns the most tokens of prompt plus response; FailedPrecondition names a feature that the server lacks."""

    @abstractmethod
    async def activate(self, folder: Path, weights: Weights) -> None:
        """Makes the server serve these weights, unless it already does."""

    @abstractmethod
    async def resident_weights(self) -> ResidentWeights:
        """The server's report on its weights."""

    @abstractmethod
    def check_sampling(self, sampling: Sampling) -> None:
        """FailedPrecondition if the server's logprobs would not be those of the sampled distribution."""

    @abstractmethod
    async def request_sample(self, model: ActiveModel, job: Job, sampling: Sampling) -> Completion | Failed:
        """One sample."""

    async def _generate_one(self, model: ActiveModel, job: Job, sampling: Sampling) -> Completion | Failed:
        try:
            return await self.request_sample(model, job, sampling)
        except AccordError as error:
            return Failed(job.index, error.reason, error.message, retryable=isinstance(error, _RETRYABLE))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            wrong = Internal(f"{self.server.url} sent a response that does not follow its protocol: {error!r}")
            return Failed(job.index, "SERVER_ANSWER", wrong.message)

    def _require_active(self) -> ActiveModel:
        if self._active is None:
            raise FailedPrecondition("no weights yet; call UpdateWeights first", reason="NO_WEIGHTS")
        return self._active


def checked_completion(job: Job, tokens: Sequence[int], logprobs: Sequence[Any], reason: Any) -> Completion | Failed:
    """The sample, or a failure if it cannot be used. `reason`: why the server ended it, `stop` or `length`."""
    numbers = [float(value) if isinstance(value, int | float) else float("nan") for value in logprobs]
    if reason not in ("stop", "length") or not tokens or len(numbers) != len(tokens):
        return Failed(
            job.index, "SERVER_ANSWER", f"{len(tokens)} tokens, {len(numbers)} logprobs, ended by {reason!r}", True
        )
    # JSON has no NaN: servers send the sentinel -9999, or nothing, instead.
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
    """The job's seed without its highest bit, which every server accepts."""
    return job.seed & (2**63 - 1)
