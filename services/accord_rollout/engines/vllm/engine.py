"""vLLM: continuous batching across callers, and weights that change while samples are being generated.

Logprobs are those of the sampled distribution. A sample's random numbers come from its own seed, and its logits equal
those it would have alone up to float rounding, so it has the same tokens unless two candidates tie within rounding. An
update freezes the running samples, changes the weights, drops all cached keys and values, and continues: the new
weights read the old tokens again, so each token's logprob is that of one version, which the spans name.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from vllm import SamplingParams, TokensPrompt
from vllm.exceptions import VLLMClientError
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from accord.errors import DeadlineExceeded, FailedPrecondition, Internal, InvalidArgument
from accord.types import v1 as types_v1
from accord_models.gpus import gpu_ids
from accord_models.loading import load_config, same_architecture, stop_tokens
from accord_models.precision import compute_threads, resolve_dtype
from accord_models.stored import stored_shapes
from accord_models.tokenizer import fingerprint, load_tokenizer, render
from accord_rollout.engine import (
    PROBE_TOKENS,
    Activate,
    Completion,
    Failed,
    Job,
    ModelInfo,
    ResidentWeights,
    Sampling,
    Weights,
)
from accord_rollout.engines.concurrent import as_finished, engine_died
from accord_rollout.engines.options import read_options
from accord_rollout.engines.vllm import launch
from accord_rollout.engines.vllm.converters import completion, probe_logprobs, sampling_params
from accord_rollout.engines.vllm.options import VllmOptions
from accord_rollout.engines.vllm.weight_transfer import Push, Reload, Transfer
from accord_rollout.settings import RolloutSettings


@dataclass
class _Running:
    """One AsyncLLM, for one architecture. `versions`: the weights by label."""

    llm: AsyncLLM
    transfer: Transfer
    config: Any
    shapes: dict[str, tuple[int, ...]]
    digest: str  # of the loaded weights
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    lost: bool = False
    versions: dict[str, Weights] = field(default_factory=dict)


@dataclass(frozen=True)
class _Active:
    running: _Running
    tokenizer: PreTrainedTokenizerBase
    stop_ids: tuple[int, ...]
    info: ModelInfo


class VllmEngine:
    """An AsyncLLM; its scheduler and workers are separate processes."""

    max_concurrent_requests = 2**20  # vLLM batches all requests; the service limits the queue
    updates_in_flight = True

    def __init__(self, settings: RolloutSettings) -> None:
        self._options = read_options(VllmOptions, settings)
        self._cuda = launch.device(settings.device, self._options) == "cuda"
        self.compute_dtype = resolve_dtype(settings.dtype)
        self.compute_threads = compute_threads(settings.threads)
        self._active: _Active | None = None
        self._running: list[_Running] = []
        self._starting = asyncio.Lock()
        self._labels, self._requests = itertools.count(1), itertools.count(1)

    async def prepare(self, folder: Path, weights: Weights) -> Activate:
        """Checks the folder. The first model, or one of another architecture, gets a new AsyncLLM next to the old one
        (both must fit, which is rare on a GPU). Another version of the same model goes into the running workers."""
        tokenizer, config = await asyncio.to_thread(lambda: (load_tokenizer(folder), load_config(folder)))
        shapes = await asyncio.to_thread(stored_shapes, folder)
        async with self._starting:
            running = self._fitting(folder, config, shapes) or await self._start(folder, weights, config, shapes)
        info = ModelInfo(
            tokenizer_fingerprint=fingerprint(tokenizer),
            max_context_tokens=running.llm.model_config.max_model_len,
            vocabulary_size=int(config.get_text_config().vocab_size),
        )
        new = _Active(running, tokenizer, stop_tokens(folder, config, tokenizer), info)

        async def activate() -> ModelInfo:
            return await self._activate(new, weights, folder)

        return activate

    def gpus(self) -> list[str]:
        """The GPUs of its workers."""
        most = max((one.llm.vllm_config.parallel_config.world_size for one in self._running), default=0)
        return gpu_ids(range(most)) if self._cuda else []

    def render(self, conversation: types_v1.Conversation) -> list[int]:
        """By the model's chat template."""
        return render(self._require_active().tokenizer, conversation)

    def decode(self, token_ids: Sequence[int]) -> str:
        """By the model's tokenizer."""
        return str(self._require_active().tokenizer.decode(list(token_ids), skip_special_tokens=True))

    async def generate(self, jobs: Sequence[Job], sampling: Sampling) -> AsyncGenerator[Completion | Failed, None]:
        """Each job is a separate request to the scheduler. Closing the iterator aborts the running ones."""
        active = self._require_active()
        running, params = active.running, sampling_params(sampling, active.stop_ids)
        finished = as_finished(jobs, lambda job: self._generate_one(active, job, params), running.tasks)
        try:
            async with aclosing(finished) as results:
                async for result in results:
                    yield result
        finally:
            self._end_unused(running)

    async def resident_weights(self) -> ResidentWeights:
        """The resident checksum, one part per worker; no digest, because vLLM fuses and repacks tensors."""
        running, seconds = self._require_active().running, self._options.update_seconds
        async with asyncio.timeout(seconds):
            parts: list[str] = await running.llm.collective_rpc("accord_checksum", timeout=seconds)
            params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False)
            probe = await self._request(running, PROBE_TOKENS, params)
        return ResidentWeights(checksum="+".join(parts), probe_logprobs=probe_logprobs(probe))

    async def close(self) -> None:
        """Ends vLLM's processes."""
        running = [each for each in self._running if not each.lost]
        self._active, self._running = None, []
        for each in running:
            each.lost = True
            for task in each.tasks:
                task.cancel()
            await asyncio.to_thread(each.llm.shutdown)

    async def _generate_one(self, active: _Active, job: Job, params: SamplingParams) -> Completion | Failed:
        params = params.clone()
        params.seed = job.seed - 2**64 if job.seed >= 2**63 else job.seed  # 64 bits as a signed number
        try:
            output = await self._request(active.running, job.prompt_token_ids, params)
        except EngineDeadError:
            self._lose(active.running)
            return engine_died(job)
        except (VLLMClientError, EngineGenerateError, ValueError) as error:
            cause = error.__cause__ or error
            return Failed(job.index, "ENGINE_REFUSED", f"vLLM refused the request: {cause}")
        return completion(job.index, output.outputs[0], active.running.versions)

    async def _request(self, running: _Running, token_ids: Iterable[int], params: SamplingParams) -> Any:
        """The final RequestOutput."""
        prompt = TokensPrompt(prompt_token_ids=list(token_ids))
        stream = running.llm.generate(prompt, params, str(next(self._requests)))
        return [output async for output in stream][-1]

    def _fitting(self, folder: Path, config: Any, shapes: dict[str, tuple[int, ...]]) -> _Running | None:
        """The AsyncLLM of this architecture. InvalidArgument/BAD_MODEL if the weights do not fit the architecture."""
        for running in self._running:
            if running.lost or running.llm.errored or not same_architecture(running.config, config):
                continue
            odd = sorted(set(running.shapes.items()) ^ set(shapes.items()))
            if odd:
                raise InvalidArgument(
                    f"the weights in {folder} do not fit the architecture in its config.json: {odd[0][0]} and "
                    f"{len(odd) - 1} more are missing, unexpected or of another shape",
                    reason="BAD_MODEL",
                )
            return running
        return None

    async def _start(self, folder: Path, weights: Weights, config: Any, shapes: dict[str, tuple[int, ...]]) -> _Running:
        for spare in self._running:  # prepared and never activated
            self._end_unused(spare)
        args = launch.engine_args(
            folder, self._options, cuda=self._cuda, dtype=self.compute_dtype, threads=self.compute_threads
        )
        llm = await launch.start(args, folder)
        backend, seconds = self._options.weight_transfer, self._options.update_seconds
        transfer = Reload(llm, seconds) if backend == "reload" else Push(llm, backend, seconds)
        self._running = [each for each in self._running if not each.lost]
        self._running.append(_Running(llm, transfer, config, shapes, digest=weights.digest))
        return self._running[-1]

    async def _activate(self, new: _Active, weights: Weights, folder: Path) -> ModelInfo:
        old, running = self._active, new.running
        if running.lost:
            raise FailedPrecondition(
                f"the vLLM that version {weights.version} was prepared for has ended; prepare it again",
                reason="NOT_PREPARED",
            )
        label = str(next(self._labels))
        running.versions[label] = weights
        try:
            async with asyncio.timeout(self._options.update_seconds):
                if running.digest != weights.digest:
                    await running.llm.pause_generation(mode="keep", clear_cache=False)
                    await running.transfer.send(folder)
                    await running.llm.collective_rpc("accord_repack", timeout=self._options.update_seconds)
                    await running.llm.reset_prefix_cache(reset_running_requests=True)
                    running.digest = weights.digest
                await running.llm.update_weight_version(label)
                await running.llm.resume_generation()
        except BaseException as error:
            # The workers' weights are unknown. Ending them fails the frozen samples; the next update starts new ones.
            self._lose(running)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(
                    f"vLLM did not load version {weights.version} within {self._options.update_seconds:g} s and was "
                    "ended; the next update starts it again",
                    reason="ENGINE_STUCK",
                ) from error
            if isinstance(error, Exception):
                raise Internal(
                    f"vLLM failed while it loaded version {weights.version} and was ended: {error}",
                    reason="ENGINE_DIED",
                ) from error
            raise
        self._active = new
        if old is not None and old.running is not running:
            self._end_unused(old.running)
        return new.info

    def _current(self) -> _Active | None:
        """The active model, unless vLLM's processes have died."""
        if self._active is not None and self._active.running.llm.errored:
            self._lose(self._active.running)
        return self._active

    def _require_active(self) -> _Active:
        active = self._current()
        if active is None:
            raise FailedPrecondition("no weights yet; call UpdateWeights first", reason="NO_WEIGHTS")
        return active

    def _lose(self, running: _Running) -> None:
        """Ends an AsyncLLM that died or cannot be trusted. The engine has no weights until the next update."""
        if running.lost:
            return
        running.lost = True
        if self._active is not None and self._active.running is running:
            self._active = None
        for task in running.tasks:
            task.cancel()
        launch.end(running.llm)

    def _end_unused(self, running: _Running) -> None:
        """Ends an AsyncLLM that is not active, once its last sample is finished."""
        in_use = self._active is not None and self._active.running is running
        if not in_use and not running.tasks and not running.lost:
            running.lost = True
            launch.end(running.llm)
