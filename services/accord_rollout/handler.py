"""What the rollout service does, without gRPC: queue, checks, weights in force, leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from accord.errors import Internal, InvalidArgument
from accord.rollout import v1 as rollout_v1
from accord_models.gpus import held_gpus
from accord_rollout.engine import Engine, Failed, HoldingGpus, Job, ModelInfo
from accord_rollout.requests.admission import Admission, Ticket
from accord_rollout.requests.converters import InForce, failure_response, held_message, sample_response
from accord_rollout.requests.plan import Plan, make_plan
from accord_rollout.weights.fetching import Sources
from accord_rollout.weights.manager import WeightManager
from accord_rollout.weights.shared_lock import SharedLock
from accord_runtime.artifacts.transfer import Limits
from accord_runtime.serving.idempotency import OnceUnderLease
from accord_runtime.serving.leases import LeaseTable

_Results = asyncio.Queue[rollout_v1.GenerateResponse | None]


class RolloutHandler:
    """Serves one engine. Lives on the event loop; the engine computes elsewhere."""

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
        self._backlog = Admission(max_pending_samples)
        self._max_pending_samples = max_pending_samples
        self._gate = SharedLock(engine.max_concurrent_requests)
        self._sources = Sources(cache, limits)
        self._keeper = WeightManager(engine, self._gate, self._sources, max_prepared=max_prepared_versions)
        self.leases = LeaseTable(max_lease_seconds)
        self._mutate = OnceUnderLease(self.leases).run

    async def generate(self, request: rollout_v1.GenerateRequest) -> AsyncGenerator[rollout_v1.GenerateResponse, None]:
        """The samples and failures of a request, as they finish; closing the iterator frees its work and its place.

        A caller that reads slowly does not hold the engine: results wait in memory.
        """
        self.leases.check(request.lease_token)
        plan = make_plan(request)
        self._keeper.for_request(request)
        with self._backlog.admit(len(plan.slots)) as ticket:
            results: _Results = asyncio.Queue()
            producer = asyncio.create_task(self._produce(request, plan, results, ticket))
            try:
                while (response := await results.get()) is not None:
                    await self._keeper.looked()
                    yield response
                await producer
            finally:
                producer.cancel()
                await asyncio.gather(producer, return_exceptions=True)

    async def update_weights(self, request: rollout_v1.UpdateWeightsRequest) -> rollout_v1.UpdateWeightsResponse:
        """Fetches, verifies and activates. On any error before activation the old weights stay in force."""
        return await self._mutate(request, lambda: self._keeper.update(request.weights))

    async def prepare_weights(self, request: rollout_v1.PrepareWeightsRequest) -> rollout_v1.PrepareWeightsResponse:
        """Fetches and verifies while the weights in force serve."""

        async def prepare() -> rollout_v1.PrepareWeightsResponse:
            return rollout_v1.PrepareWeightsResponse(prepared=await self._keeper.prepare(request.weights))

        return await self._mutate(request, prepare)

    async def activate_weights(self, request: rollout_v1.ActivateWeightsRequest) -> rollout_v1.ActivateWeightsResponse:
        """Puts a prepared version in force."""
        return await self._mutate(request, lambda: self._keeper.activate(request.version))

    async def discard_weights(self, request: rollout_v1.DiscardWeightsRequest) -> rollout_v1.DiscardWeightsResponse:
        """Lets go of a prepared version."""

        async def discard() -> rollout_v1.DiscardWeightsResponse:
            self._keeper.discard(request.version)
            return rollout_v1.DiscardWeightsResponse()

        return await self._mutate(request, discard)

    async def install(self, folder: Path, version: int, digest: str) -> None:
        """Puts the model in `folder`, of which this is the digest, in force between requests."""
        await self._keeper.install(folder, version, digest)

    def status(self) -> rollout_v1.GetStatusResponse:
        """What is served now."""
        response = rollout_v1.GetStatusResponse(
            engine=self._engine_name,
            ready=self._keeper.in_force is not None,
            compute_dtype=self._engine.compute_dtype,
            compute_threads=self._engine.compute_threads,
            pending_samples=self._backlog.pending,
            max_pending_samples=self._max_pending_samples,
            lease=self.leases.current(),
            updates_in_flight=self._engine.updates_in_flight,
            prepared=self._keeper.prepared,
            weight_formats=self._sources.formats,
            uri_schemes=self._sources.schemes,
        )
        if (in_force := self._keeper.in_force) is not None:
            response.version = in_force.weights.version
            response.digest = in_force.weights.digest
            response.tokenizer_fingerprint = in_force.model.tokenizer_fingerprint
            response.max_context_tokens = in_force.model.max_context_tokens
            response.held.CopyFrom(held_message(self._keeper.held))
        return response

    def gpus(self) -> Sequence[str]:
        """Ids of the GPUs that hold memory for the service or its engine."""
        of_engine = self._engine.gpus() if isinstance(self._engine, HoldingGpus) else ()
        return sorted({*held_gpus(), *of_engine})

    async def close(self) -> None:
        """Ends the engine."""
        await self._engine.close()

    @asynccontextmanager
    async def _turn(self, request: rollout_v1.GenerateRequest) -> AsyncIterator[None]:
        """The engine, with the same weights throughout unless it can change them under a request that names none."""
        if self._engine.updates_in_flight and not request.HasField("version"):
            yield
            return
        async with self._gate.shared():
            yield

    async def _produce(
        self, request: rollout_v1.GenerateRequest, plan: Plan, results: _Results, ticket: Ticket
    ) -> None:
        """Fills `results`, then None. Holds the engine only as long as it computes."""
        try:
            async with self._turn(request):
                in_force = self._keeper.for_request(request)  # an update may have come first
                async for response in self._draw(request, plan, in_force):
                    results.put_nowait(response)
                    ticket.done()
            if ticket.left:
                raise Internal(f"the engine gave no result for {ticket.left} samples", reason="ENGINE_FAULT")
        finally:
            results.put_nowait(None)

    async def _draw(
        self, request: rollout_v1.GenerateRequest, plan: Plan, in_force: InForce
    ) -> AsyncGenerator[rollout_v1.GenerateResponse, None]:
        positions = sorted({slot.prompt_position for slot in plan.slots})
        prompts = await asyncio.to_thread(self._render_all, request, positions, plan, in_force)
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
        async with aclosing(self._engine.generate(jobs, plan.sampling)) as drawings:
            async for drawn in drawings:
                if isinstance(drawn, Failed):
                    yield failure_response(request.request_id, drawn)
                    continue
                slot, text = slots[drawn.index], self._engine.decode(drawn.response_token_ids)
                prompt = prompts[slot.prompt_position]
                assert not isinstance(prompt, Failed)
                yield sample_response(request, slot, prompt, drawn, text, plan.sampling, in_force, self._engine_name)

    def _render_all(
        self, request: rollout_v1.GenerateRequest, positions: Sequence[int], plan: Plan, in_force: InForce
    ) -> dict[int, tuple[int, ...] | Failed]:
        """Token ids of the prompts at `positions`, or why a prompt cannot be answered. Runs off the event loop."""
        return {
            position: self._render(request.prompts[position], position, plan, in_force.model) for position in positions
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
            except InvalidArgument as error:  # one bad conversation must not lose the other prompts' samples
                return Failed(-1, error.reason, f"prompts[{position}]: {error.message}")
        if not ids:
            return Failed(-1, "EMPTY_PROMPT", f"prompts[{position}] has no tokens")
        needed = len(ids) + plan.sampling.max_new_tokens
        if needed > model.max_context_tokens:
            return Failed(
                -1,
                "PROMPT_TOO_LONG",
                f"prompts[{position}] has {len(ids)} tokens; with {plan.sampling.max_new_tokens} new ones that is "
                f"{needed}, above the model's {model.max_context_tokens}: shorten it or ask for fewer",
            )
        return ids
