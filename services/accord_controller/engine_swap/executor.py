"""Executes an engine swap of an active run: candidates start, pass acceptance and take over; the others drain.

Each step is recorded before the next begins, so a restarted controller continues from the last one. A pending swap
starts its candidates again (running ones are found) and repeats their acceptance while the current services keep
serving. After the shift, a swap only has to drain the previous services.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from accord import Replicas
from accord.conformance.suite import acceptance
from accord.controller import v1 as controller_v1
from accord.errors import AccordError, FailedPrecondition
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_controller.clients.replica_set import ReplicaSet
from accord_controller.clients.rollout_services import current_services, find, rollout_set
from accord_controller.engine_swap import records
from accord_controller.engine_swap.acceptance import accept, candidates
from accord_controller.launchers.launcher import Launcher
from accord_controller.ledger import keys
from accord_controller.ledger.recorder import RunRecorder

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2


class SwapExecutor:
    """Executes one run's swaps.

    `recorder` returns the current recorder; `recording` is held while it is replaced and while a swap is recorded;
    `alone`: whether no other run is active in this process.
    """

    def __init__(
        self,
        launcher: Launcher,
        rollouts: ReplicaSet,
        lease_seconds: float,
        *,
        recorder: Callable[[], RunRecorder],
        recording: asyncio.Lock,
        alone: Callable[[], bool],
    ) -> None:
        self._launcher = launcher
        self._rollouts = rollouts
        self._lease_seconds = lease_seconds
        self._recorder = recorder
        self._recording = recording
        self._alone = alone

    def weights(self) -> types_v1.WeightsRef | None:
        """The weights that candidates get: the active ones, or else the run's first ones. None before the run has
        pinned its model."""
        if self._rollouts.weights is not None:
            return self._rollouts.weights
        recorder = self._recorder()
        if recorder.status.HasField("promoted"):
            promoted = types_v1.WeightsRef()
            promoted.CopyFrom(recorder.status.promoted)
            promoted.version = 0
            return promoted
        return recorder.ledger.get(keys.BASE, types_v1.WeightsRef)

    async def execute(self, swap: controller_v1.EngineSwap) -> None:
        """Executes a swap from its recorded state to its end. If the candidates fail, the swap is refused."""
        if swap.state == controller_v1.SWAP_STATE_PENDING:
            try:
                await self._bring_in(swap)
            except AccordError as error:
                await self._refuse(swap, error.reason, error.message)
            except Exception as error:
                log.exception("swap %d: internal error", swap.number)
                await self._refuse(swap, "INTERNAL", f"internal error: {error}; see the controller's log")
        if swap.state == controller_v1.SWAP_STATE_SHIFTED:
            await self._drain_previous(swap)

    async def finish(self) -> None:
        """The run has ended: refuses a pending swap and stops the services that a swap started."""
        status = self._recorder().status
        swap = records.in_progress(status)
        if swap is not None and swap.state == controller_v1.SWAP_STATE_PENDING:
            await self._refuse(swap, "RUN_ENDED", "the run ended before the swap")
        await self.stop_services()

    async def stop_services(self) -> None:
        """Stops the current services if a swap of this run started them. A resumed run starts them again."""
        services = current_services(self._recorder().status)
        if services.swap:
            await self._stop(services)

    async def _bring_in(self, swap: controller_v1.EngineSwap) -> None:
        while self.weights() is None:  # noqa: ASYNC110  the prepare stage pins the model
            await asyncio.sleep(POLL_SECONDS)
        holder = f"runs/{self._recorder().run_id}"
        addresses = await find(self._launcher, swap.services, self._recorder().run_id, None)
        size = len(swap.services.addresses) or swap.services.replicas
        if len(addresses) < size:
            raise FailedPrecondition(f"only {len(addresses)} of {size} replicas started", reason="REPLICA_DOWN")
        in_use = sorted(set(addresses) & set(self._rollouts.addresses))
        if in_use:
            raise FailedPrecondition(f"the service at {in_use[0]} already serves this run", reason="IN_USE")
        async with candidates(addresses, holder, self._lease_seconds) as replicas:
            weights = await self._accept(swap, replicas)
            swap.checks[:] = acceptance()

            async def commit() -> None:
                swap.state = controller_v1.SWAP_STATE_SHIFTED
                swap.decide_time.GetCurrentTime()
                try:
                    await self._record(swap, f"{records.described(swap.services)} now serves the run")
                except BaseException:
                    swap.state = controller_v1.SWAP_STATE_PENDING
                    raise

            await self._rollouts.shift(swap.services, replicas, weights, commit)

    async def _accept(self, swap: controller_v1.EngineSwap, replicas: Replicas) -> types_v1.WeightsRef:
        """The candidates' weights, once the candidates have passed acceptance with them."""
        tried: types_v1.WeightsRef | None = None
        while True:
            weights = self.weights()
            assert weights is not None, "a run does not lose its model"
            recorder = self._recorder()
            try:
                swap.services.engine = await accept(
                    replicas,
                    weights,
                    engine=swap.services.engine,
                    initial=recorder.ledger.get(keys.ENGINE, rollout_v1.GetStatusResponse),
                    current=await self._rollouts.status_if_any(),
                    deterministic=recorder.spec.deterministic,
                )
                return weights
            except AccordError as error:
                # A run with fast steps may have freed these weights in the meantime; newer ones are then active.
                if error.reason != "WEIGHTS_NOT_FOUND" or weights == tried:
                    raise
                tried = weights

    async def _drain_previous(self, swap: controller_v1.EngineSwap) -> None:
        await self._rollouts.drained()
        previous = records.previous_services(self._recorder().status, swap.number)
        # Services that all runs share keep running while another run is active.
        if previous.swap or self._alone():
            await self._stop(previous)
        swap.state = controller_v1.SWAP_STATE_DONE
        await self._record(swap, f"{records.described(previous)} has drained")

    async def _refuse(self, swap: controller_v1.EngineSwap, reason: str, message: str) -> None:
        log.warning("swap %d refused: %s [%s]", swap.number, message, reason)
        swap.state, swap.reason, swap.message = controller_v1.SWAP_STATE_REFUSED, reason, message
        swap.decide_time.GetCurrentTime()
        current = records.described(current_services(self._recorder().status))
        await self._record(
            swap, f"{records.described(swap.services)} was refused, {current} keeps serving: {message} [{reason}]"
        )
        await self._stop(swap.services)

    async def _stop(self, services: controller_v1.RolloutServices) -> None:
        if not services.addresses:
            await self._launcher.end_rollouts(rollout_set(services, self._recorder().run_id))

    async def _record(self, swap: controller_v1.EngineSwap, message: str) -> None:
        async with self._recording:
            await records.record(self._recorder(), swap, message)
