"""What the rollout service does, without gRPC: queue, checks, weights in force, leases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from accord.errors import DataLoss, FailedPrecondition, Internal, InvalidArgument, Unimplemented
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_rollout.backlog import Backlog, Ticket
from accord_rollout.engine import Engine, Failed, Held, Job, ModelInfo, Weights
from accord_rollout.gate import Gate
from accord_rollout.messages import InForce, failure_response, held_message, sample_response
from accord_rollout.plan import Plan, make_plan
from accord_runtime import artifacts
from accord_runtime.idempotency import Once
from accord_runtime.leases import LeaseTable

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
        max_lease_seconds: float = 600,
    ) -> None:
        self._engine = engine
        self._engine_name = engine_name
        self._cache = cache
        self._backlog = Backlog(max_pending_samples)
        self._in_force: InForce | None = None
        self._gate = Gate(engine.max_concurrent_requests)
        self._updating = asyncio.Lock()
        self._once = Once()
        self.leases = LeaseTable(max_lease_seconds)

    async def generate(self, request: rollout_v1.GenerateRequest) -> AsyncGenerator[rollout_v1.GenerateResponse, None]:
        """The samples and failures of a request, as they finish; closing the iterator frees its work and its place.

        A caller that reads slowly does not hold the engine: results wait in memory.
        """
        self.leases.check(request.lease_token)
        plan = make_plan(request)
        self._weights_for(request)
        with self._backlog.admit(len(plan.slots)) as ticket:
            results: _Results = asyncio.Queue()
            producer = asyncio.create_task(self._produce(request, plan, results, ticket))
            try:
                while (response := await results.get()) is not None:
                    yield response
                await producer
            finally:
                producer.cancel()
                await asyncio.gather(producer, return_exceptions=True)

    async def update_weights(self, request: rollout_v1.UpdateWeightsRequest) -> rollout_v1.UpdateWeightsResponse:
        """Fetches, verifies and activates; once for each request_id. On any error the old weights stay in force."""
        self.leases.check(request.lease_token)
        content = rollout_v1.UpdateWeightsRequest()
        content.CopyFrom(request)
        content.ClearField("lease_token")  # a repeated call may carry a renewed lease
        return await self._once.run(request.request_id, content, lambda: self._update(request.weights))

    async def install(self, folder: Path, version: int, digest: str) -> tuple[float, Held]:
        """Puts the model in `folder` in force; returns the seconds in which no token was made, and what the engine
        found in its memory then. DataLoss/HELD_WEIGHTS_DIFFER."""
        weights = Weights(version, digest)
        activate = await self._engine.prepare(folder, weights)
        # Also where the engine updates in flight: requests that name a version are in the gate and finish first.
        async with self._gate.exclusive():
            start = time.perf_counter()
            model = await activate()
            found = model.held.digest
            self._in_force = InForce(weights, model) if found in ("", digest) else None
            if self._in_force is None:
                raise DataLoss(
                    f"the engine holds other weights than version {version}: digest {found[:12]}, expected "
                    f"{digest[:12]}; nothing is served until another update succeeds",
                    reason="HELD_WEIGHTS_DIFFER",
                    metadata={"expected": digest, "found": found},
                )
            return time.perf_counter() - start, model.held

    def status(self) -> rollout_v1.GetStatusResponse:
        """What is served now."""
        response = rollout_v1.GetStatusResponse(
            engine=self._engine_name,
            ready=self._in_force is not None,
            compute_dtype=self._engine.compute_dtype,
            compute_threads=self._engine.compute_threads,
            pending_samples=self._backlog.pending,
            lease=self.leases.current(),
            updates_in_flight=self._engine.updates_in_flight,
        )
        if self._in_force is not None:
            response.version = self._in_force.weights.version
            response.digest = self._in_force.weights.digest
            response.tokenizer_fingerprint = self._in_force.model.tokenizer_fingerprint
            response.max_context_tokens = self._in_force.model.max_context_tokens
            response.held.CopyFrom(held_message(self._in_force.model.held))
        return response

    async def close(self) -> None:
        """Ends the engine."""
        await self._engine.close()

    async def _update(self, ref: types_v1.WeightsRef) -> rollout_v1.UpdateWeightsResponse:
        if ref.format == "adapter":
            raise Unimplemented(
                "this engine serves merged weights only: publish with format `merged`", reason="ADAPTER_UNSUPPORTED"
            )
        if ref.format not in ("", "merged"):
            raise InvalidArgument.at("weights.format", f"unknown format {ref.format!r}; there is: merged, adapter")
        async with self._updating:
            start = time.perf_counter()
            folder = await artifacts.fetch(ref, self._cache)
            activate_seconds, held = await self.install(folder, ref.version, ref.digest)
            return rollout_v1.UpdateWeightsResponse(
                version=ref.version,
                digest=ref.digest,
                prepare_seconds=time.perf_counter() - start - activate_seconds,
                activate_seconds=activate_seconds,
                held=held_message(held),
            )

    def _weights_for(self, request: rollout_v1.GenerateRequest) -> InForce:
        """The weights in force, when they are those that the request wants."""
        in_force = self._in_force
        if in_force is None:
            raise FailedPrecondition("no weights yet: call UpdateWeights first", reason="NO_WEIGHTS")
        version = in_force.weights.version
        if request.HasField("version") and request.version != version:
            raise FailedPrecondition(
                f"version {request.version} is not in force, {version} is; call UpdateWeights first",
                reason="VERSION_MISMATCH",
                metadata={"wanted": str(request.version), "in_force": str(version)},
            )
        fingerprint = in_force.model.tokenizer_fingerprint
        if request.tokenizer_fingerprint and request.tokenizer_fingerprint != fingerprint:
            raise FailedPrecondition(
                "the caller's tokenizer is not the model's; use the tokenizer of the weights in force",
                reason="TOKENIZER_MISMATCH",
                metadata={"wanted": request.tokenizer_fingerprint, "in_force": fingerprint},
            )
        return in_force

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
                in_force = self._weights_for(request)  # an update may have come first
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
                yield sample_response(request, slot, prompt, drawn, text, plan.sampling, in_force)

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
