"""Swaps a run's rollout services while it goes on: newcomers up, tried, in; the old ones finish, and go.

Each step is recorded before the next begins, so that a controller that is killed goes on from there: pending, it brings
the newcomers up again (those that live are found) and tries them anew while the old ones stay in force; shifted, it
only lets the old ones go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from accord import Replicas
from accord.controller import v1 as controller_v1
from accord.errors import AccordError, FailedPrecondition
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_controller.clients.replica_set import ReplicaSet
from accord_controller.clients.rollout_services import current_services, find, rollout_set
from accord_controller.engine_swap import records
from accord_controller.engine_swap.acceptance import CHECKS, candidates, try_out
from accord_controller.launchers.launcher import Launcher
from accord_controller.ledger import keys
from accord_controller.ledger.recorder import RunRecorder

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2


class SwapExecutor:
    """One run's. `journal`: the one in hand now; `recording` is held while it changes hands or a swap is recorded;
    `alone`: whether no other run is at work here."""

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
        """What the newcomers are given: what is in force, or will be first. None before the run knows its model."""
        if self._rollouts.weights is not None:
            return self._rollouts.weights
        recorder = self._recorder()
        if recorder.status.HasField("promoted"):
            promoted = types_v1.WeightsRef()
            promoted.CopyFrom(recorder.status.promoted)
            promoted.version = 0
            return promoted
        return recorder.ledger.get(keys.BASE, types_v1.WeightsRef)

    async def carry_out(self, swap: controller_v1.EngineSwap) -> None:
        """To its end, from where it was left. What goes wrong with the newcomers refuses them."""
        if swap.state == controller_v1.SWAP_STATE_PENDING:
            try:
                await self._bring_in(swap)
            except AccordError as error:
                await self._refuse(swap, error.reason, error.message)
            except Exception as error:
                log.exception("swap %d: fault in the controller", swap.number)
                await self._refuse(swap, "INTERNAL", f"fault in the controller: {error}; see its log")
        if swap.state == controller_v1.SWAP_STATE_SHIFTED:
            await self._let_go(swap)

    async def give_up(self) -> None:
        """The run is over: nobody needs newcomers any more, nor those that a swap brought in."""
        status = self._recorder().status
        swap = records.under_way(status)
        if swap is not None and swap.state == controller_v1.SWAP_STATE_PENDING:
            await self._refuse(swap, "RUN_ENDED", "the run was over before")
        await self.end_own()

    async def end_own(self) -> None:
        """Stops what draws, where a swap of this run started it. A run that goes on starts it again."""
        services = current_services(self._recorder().status)
        if services.swap:
            await self._end(services)

    async def _bring_in(self, swap: controller_v1.EngineSwap) -> None:
        while self.weights() is None:  # noqa: ASYNC110  a stage finds the model some time
            await asyncio.sleep(POLL_SECONDS)
        holder = f"runs/{self._recorder().run_id}"
        addresses = await find(self._launcher, swap.services, self._recorder().run_id, None)
        size = len(swap.services.addresses) or swap.services.replicas
        if len(addresses) < size:
            raise FailedPrecondition(f"only {len(addresses)} of {size} came up", reason="REPLICA_DOWN")
        taken = sorted(set(addresses) & set(self._rollouts.addresses))
        if taken:
            raise FailedPrecondition(f"the service at {taken[0]} draws for this run already", reason="IN_USE")
        async with candidates(addresses, holder, self._lease_seconds) as replicas:
            weights = await self._try_out(swap, replicas)
            swap.checks[:] = CHECKS

            async def commit() -> None:
                swap.state = controller_v1.SWAP_STATE_SHIFTED
                swap.decide_time.GetCurrentTime()
                try:
                    await self._record(swap, f"{records.described(swap.services)} draws from now on")
                except BaseException:
                    swap.state = controller_v1.SWAP_STATE_PENDING
                    raise

            await self._rollouts.shift(swap.services, replicas, weights, commit)

    async def _try_out(self, swap: controller_v1.EngineSwap, replicas: Replicas) -> types_v1.WeightsRef:
        """The weights that the newcomers have, once they keep the contract with them."""
        tried: types_v1.WeightsRef | None = None
        while True:
            weights = self.weights()
            assert weights is not None, "a run does not forget its model"
            recorder = self._recorder()
            try:
                swap.services.engine = await try_out(
                    replicas,
                    weights,
                    engine=swap.services.engine,
                    then=recorder.ledger.get(keys.ENGINE, rollout_v1.GetStatusResponse),
                    now=await self._rollouts.status_if_any(),
                    deterministic=recorder.spec.deterministic,
                )
                return weights
            except AccordError as error:
                # A run that makes steps fast has freed these weights meanwhile, and has others in force.
                if error.reason != "WEIGHTS_NOT_FOUND" or weights == tried:
                    raise
                tried = weights

    async def _let_go(self, swap: controller_v1.EngineSwap) -> None:
        await self._rollouts.drained()
        old = records.before(self._recorder().status, swap.number)
        # What all runs share stays while others are at work.
        if old.swap or self._alone():
            await self._end(old)
        swap.state = controller_v1.SWAP_STATE_DONE
        await self._record(swap, f"{records.described(old)} has nothing left to do")

    async def _refuse(self, swap: controller_v1.EngineSwap, reason: str, message: str) -> None:
        log.warning("swap %d is refused: %s [%s]", swap.number, message, reason)
        swap.state, swap.reason, swap.message = controller_v1.SWAP_STATE_REFUSED, reason, message
        swap.decide_time.GetCurrentTime()
        stays = records.described(current_services(self._recorder().status))
        await self._record(swap, f"{records.described(swap.services)} is refused, {stays} stays: {message} [{reason}]")
        await self._end(swap.services)

    async def _end(self, services: controller_v1.RolloutServices) -> None:
        if not services.addresses:
            await self._launcher.end_rollouts(rollout_set(services, self._recorder().run_id))

    async def _record(self, swap: controller_v1.EngineSwap, message: str) -> None:
        async with self._recording:
            await records.record(self._recorder(), swap, message)
