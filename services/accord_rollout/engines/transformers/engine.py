"""The reference engine: Hugging Face `generate`, batched; each row has its own random stream.

The same request (same seeds, weights, machine, number type, threads) gives the same tokens and logprobs, whatever else
runs at the same time, because a batch holds samples of one request only. A sample requested again through `indices` has
different neighbours and padding: its random numbers are the same and its logits are equal up to float rounding, so it
has the same tokens unless two candidates tie within rounding. On another device the random numbers differ.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from accord.errors import FailedPrecondition
from accord.types import v1 as types_v1
from accord_models.loading import load_causal_lm, load_config, same_architecture, stop_tokens
from accord_models.precision import compute_threads, resolve_dtype
from accord_models.stored import stored_types
from accord_models.tokenizer import fingerprint, load_tokenizer, render
from accord_rollout.engine import Activate, Completion, Failed, Job, ModelInfo, ResidentWeights, Sampling, Weights
from accord_rollout.engines.transformers.generation import batches, generate_batch
from accord_rollout.engines.transformers.resident_weights import (
    converted,
    fits,
    probe_logprobs,
    read_state,
    resident_digest,
    swap_state,
)
from accord_rollout.settings import RolloutSettings

_NO_LIMIT = 2**31 - 1  # of architectures without positions


@dataclass(frozen=True)
class _Active:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stop_ids: tuple[int, ...]
    info: ModelInfo
    stored: dict[str, torch.dtype]


class TransformersEngine:
    """Computes in its own thread; the event loop stays free."""

    max_concurrent_requests = 1
    updates_in_flight = False
    can_prepare_unverified = True

    def __init__(self, settings: RolloutSettings) -> None:
        cuda = torch.cuda.is_available()
        if settings.device == "cuda" and not cuda:
            raise FailedPrecondition("--device cuda: torch finds no GPU here", reason="NO_DEVICE")
        self._device = torch.device("cuda" if cuda and settings.device != "cpu" else "cpu")
        self.compute_dtype = resolve_dtype(settings.dtype)
        self.compute_threads = compute_threads(settings.threads)
        self._max_batch_size = settings.max_batch_size
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generate")
        self._active: _Active | None = None
        self._closing = threading.Event()

    async def prepare(self, folder: Path, weights: Weights) -> Activate:
        """Reads the weights into memory next to the active model. Activate copies them into its module (same
        architecture) or switches to the new model."""
        current = self._active
        new, state = await asyncio.to_thread(self._read, folder, current)

        async def activate() -> ModelInfo:
            if state is not None:
                await asyncio.get_running_loop().run_in_executor(self._worker, swap_state, new.model, state)
            self._active = new
            return new.info

        return activate

    async def resident_weights(self) -> ResidentWeights:
        """The digest of the module's own tensors; the probe is computed between two batches."""
        active, loop = self._require_active(), asyncio.get_running_loop()
        probe = await loop.run_in_executor(self._worker, probe_logprobs, active.model)
        return ResidentWeights(
            await asyncio.to_thread(resident_digest, active.model, active.stored), probe_logprobs=probe
        )

    def render(self, conversation: types_v1.Conversation) -> list[int]:
        """By the model's chat template."""
        return render(self._require_active().tokenizer, conversation)

    def decode(self, token_ids: Sequence[int]) -> str:
        """By the model's tokenizer."""
        return str(self._require_active().tokenizer.decode(list(token_ids), skip_special_tokens=True))

    async def generate(self, jobs: Sequence[Job], sampling: Sampling) -> AsyncGenerator[Completion | Failed, None]:
        """One batch after another. Closing the iterator ends the running batch after its current token."""
        active, loop, stop = self._require_active(), asyncio.get_running_loop(), threading.Event()
        try:
            for batch in batches(jobs, self._max_batch_size):
                results = await loop.run_in_executor(
                    self._worker,
                    generate_batch,
                    active.model,
                    active.stop_ids,
                    active.tokenizer.pad_token_id,
                    batch,
                    sampling,
                    lambda: stop.is_set() or self._closing.is_set(),
                )
                for result in results:
                    yield result
        finally:
            stop.set()

    async def close(self) -> None:
        """Abandons the samples that are being generated."""
        self._closing.set()
        await asyncio.to_thread(self._worker.shutdown, cancel_futures=True)

    def _require_active(self) -> _Active:
        if self._active is None:
            raise FailedPrecondition("no weights yet; call UpdateWeights first", reason="NO_WEIGHTS")
        return self._active

    def _read(self, folder: Path, current: _Active | None) -> tuple[_Active, dict[str, torch.Tensor] | None]:
        """The new model, and the state to load into its module if that module is in use now."""
        tokenizer, config = load_tokenizer(folder), load_config(folder)
        model, state = None, None
        if current is not None and same_architecture(current.model.config, config):
            state = read_state(folder)
            if fits(current.model, state):
                model = current.model
                state = converted(model, state)
        if model is None:
            state = None
            model = load_causal_lm(folder, self.compute_dtype)
            nn.Module.to(model, self._device)
            # The request determines the sampling, not the model's defaults (such as a repetition penalty).
            model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        text_config = model.config.get_text_config()
        info = ModelInfo(
            tokenizer_fingerprint=fingerprint(tokenizer),
            max_context_tokens=getattr(text_config, "max_position_embeddings", None) or _NO_LIMIT,
            vocabulary_size=int(text_config.vocab_size),
        )
        stop_ids = stop_tokens(folder, config, tokenizer)
        return _Active(model, tokenizer, stop_ids, info, stored_types(folder)), state
