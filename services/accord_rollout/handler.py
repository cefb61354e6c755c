"""The logic of the rollout service, without gRPC: queue, checks, weights, leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from accord.errors import Internal, InvalidArgument
from accord.rollout import v1 as rollout_v1
from accord_models.gpus import held_gpus
from accord_rollout.engine import Engine, Failed, Job, ModelInfo
from accord_rollout.requests.admission import Admission, Ticket
from accord_rollout.requests.converters import failure_response, sample_response
from accord_rollout.requests.plan import Plan, make_plan
from accord_rollout.weights.fetching import WeightFetcher
from accord_rollout.weights.manager import ActiveWeights, WeightManager, resident_weights_message
from accord_rollout.weights.shared_lock import SharedLock
from accord_runtime.artifacts.transfer import Limits
from accord_runtime.serving.idempotency import OnceUnderLease
from accord_runtime.serving.leases import LeaseTable
from accord_runtime.serving.server import HoldingGpus

_Results = asyncio.Queue[rollout_v1.GenerateResponse | None]


class RolloutHandler:
    """Serves one engine. Runs on the event loop; the engine computes elsewhere."""

    def __init__(
        self,
        engine: Engine,
        *,
        engine_name: str,
        cache: Path,
        max_pending_samples: int = 4096,
        max_prepared_versions: int = 2,
        limits: Limits | None = None,
        max_lease_seconds: float = 600,
    ) -> None:
        self._engine = engine
        self._engine_name = engine_name
        self._admission = Admission(max_pending_samples)
        self._max_pending_samples = max_pending_samples
        self._lock = SharedLock(engine.max_concurrent_requests)
        self._fetcher = WeightFetcher(cache, limits)
        self._weights = WeightManager(engine, self._lock, self._fetcher, max_prepared=max_prepared_versions)
        self.leases = LeaseTable(max_lease_seconds)
        self._mutate = OnceUnderLease(self.leases).run

    async def generate(self, request: rollout_v1.GenerateRequest) -> AsyncGenerator[rollout_v1.GenerateResponse, None]:
        """The samples and failures of a request, as they finish. Closing the iterator stops their generation.

        A slow reader does not delay the engine: results wait in memory.
        """
        self.leases.check(request.lease_token)
        plan = make_plan(request)
        self._weights.for_request(request)
        with self._admission.admit(len(plan.slots)) as ticket:
            results: _Results = asyncio.Queue()
            producer = asyncio.create_task(self._produce(request, plan, results, ticket))
            try:
                while (response := await results.get()) is not None:
                    await self._weights.until_checked()
                    yield response
                await producer
            finally:
                producer.cancel()
                await asyncio.gather(producer, return_exceptions=True)

    async def update_weights(self, request: rollout_v1.UpdateWeightsRequest) -> rollout_v1.UpdateWeightsResponse:
        """Fetches, verifies and activates. On any error before activation the old weights stay active."""
        return await self._mutate(request, lambda: self._weights.update(request.weights))

    async def prepare_weights(self, request: rollout_v1.PrepareWeightsRequest) -> rollout_v1.PrepareWeightsResponse:
        """Fetches and verifies while the active weights serve."""

        async def prepare() -> rollout_v1.PrepareWeightsResponse:
            return rollout_v1.PrepareWeightsResponse(prepared=await self._weights.prepare(request.weights))

        return await self._mutate(request, prepare)

    async def activate_weights(self, request: rollout_v1.ActivateWeightsRequest) -> rollout_v1.ActivateWeightsResponse:
        """Activates a prepared version."""
        return await self._mutate(request, lambda: self._weights.activate(request.version))

    async def discard_weights(self, request: rollout_v1.DiscardWeightsRequest) -> rollout_v1.DiscardWeightsResponse:
        """Discards a prepared version."""

        async def discard() -> rollout_v1.DiscardWeightsResponse:
            self._weights.discard(request.version)
            return rollout_v1.DiscardWeightsResponse()

        return await self._mutate(request, discard)

    async def install(self, folder: Path, version: int, digest: str) -> None:
        """Activates the model in `folder`, whose digest is known, between requests."""
        await self._weights.install(folder, version, digest)

    def status(self) -> rollout_v1.GetStatusResponse:
        """The engine, its active weights, and its load."""
        response = rollout_v1.GetStatusResponse(
            engine=self._engine_name,
            ready=self._weights.active is not None,
            compute_dtype=self._engine.compute_dtype,
            compute_threads=self._engine.compute_threads,
            pending_samples=self._admission.pending,
            max_pending_samples=self._max_pending_samples,
            lease=self.leases.current(),
            updates_in_flight=self._engine.updates_in_flight,
            prepared=self._weights.prepared,
            weight_formats=self._fetcher.formats,
            uri_schemes=self._fetcher.schemes,
        )
        if (active := self._weights.active) is not None:
            response.version = active.weights.version
            response.digest = active.weights.digest
            response.tokenizer_fingerprint = active.model.tokenizer_fingerprint
            response.max_context_tokens = active.model.max_context_tokens
            response.resident_weights.CopyFrom(resident_weights_message(self._weights.resident))
            response.held.CopyFrom(response.resident_weights)
        return response

    def gpus(self) -> Sequence[str]:
        """Ids of the GPUs that hold memory for the service or its engine."""
        of_engine = self._engine.gpus() if isinstance(self._engine, HoldingGpus) else ()
        return sorted({*held_gpus(), *of_engine})

    async def close(self) -> None:
        """Stops the engine."""
        await self._engine.close()

    @asynccontextmanager
    async def _engine_access(self, request: rollout_v1.GenerateRequest) -> AsyncIterator[None]:
        """The engine, with fixed weights unless it updates in flight and the request names no version."""
        if self._engine.updates_in_flight and not request.HasField("version"):
            yield
            return
        async with self._lock.shared():
            yield

    async def _produce(
        self, request: rollout_v1.GenerateRequest, plan: Plan, results: _Results, ticket: Ticket
    ) -> None:
        """Fills `results`, then adds None. Holds the engine only during the computation."""
        try:
            async with self._engine_access(request):
                active = self._weights.for_request(request)  # an update may have come first
                async for response in self._generate(request, plan, active):
                    results.put_nowait(response)
                    ticket.done()
            if ticket.left:
                raise Internal(f"the engine returned no result for {ticket.left} samples", reason="ENGINE_FAULT")
        finally:
            results.put_nowait(None)

    async def _generate(
        self, request: rollout_v1.GenerateRequest, plan: Plan, active: ActiveWeights
    ) -> AsyncGenerator[rollout_v1.GenerateResponse, None]:
        positions = sorted({slot.prompt_position for slot in plan.slots})
        prompts = await asyncio.to_thread(self._render_all, request, positions, plan, active)
        slots = {slot.index: slot for slot in plan.slots}
        jobs: list[Job] = []
        for slot in plan.slots:
            prompt = prompts[slot.prompt_position]
            if isinstance(prompt, Failed):
                yield failure_response(request.request_id, replace(prompt, index=slot.index))
            else:
                jobs.append(Job(slot.index, prompt, slot.seed))
        if not jobs:
            return
        async with aclosing(self._engine.generate(jobs, plan.sampling)) as generated:
            async for result in generated:
                if isinstance(result, Failed):
                    yield failure_response(request.request_id, result)
                    continue
                slot, text = slots[result.index], self._engine.decode(result.response_token_ids)
                prompt = prompts[slot.prompt_position]
                assert not isinstance(prompt, Failed)
                yield sample_response(request, slot, prompt, result, text, plan.sampling, active, self._engine_name)

    def _render_all(
        self, request: rollout_v1.GenerateRequest, positions: Sequence[int], plan: Plan, active: ActiveWeights
    ) -> dict[int, tuple[int, ...] | Failed]:
        """Token ids of the prompts at `positions`, or a failure for a prompt without any. Runs off the event loop."""
        return {
            position: self._render(request.prompts[position], position, plan, active.model) for position in positions
        }

    def _render(
        self, prompt: rollout_v1.Prompt, position: int, plan: Plan, model: ModelInfo
    ) -> tuple[int, ...] | Failed:
        if prompt.HasField("token_ids"):
            ids = tuple(prompt.token_ids.ids)
            if any(not 0 <= token < model.vocabulary_size for token in ids):
                raise InvalidArgument.at(
                    f"prompts[{position}].token_ids", f"has ids outside 0..{model.vocabulary_size - 1}"
                )
        else:
            try:
                ids = tuple(self._engine.render(prompt.conversation))
            except InvalidArgument as error:  # one bad conversation must not fail the other prompts' samples
                return Failed(-1, error.reason, f"prompts[{position}]: {error.message}")
        if not ids:
            return Failed(-1, "EMPTY_PROMPT", f"prompts[{position}] has no tokens")
        needed = len(ids) + plan.sampling.max_new_tokens
        if needed > model.max_context_tokens:
            return Failed(
                -1,
                "PROMPT_TOO_LONG",
                f"prompts[{position}] has {len(ids)} tokens; with {plan.sampling.max_new_tokens} new ones that is "
                f"{needed}, more than the model's {model.max_context_tokens}. Shorten it or request fewer",
            )
        return ids
