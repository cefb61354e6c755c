"""Drives one run: observe, reconcile, act, again, until there is nothing to do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from accord.controller import v1 as controller_v1
from accord.errors import AccordError
from accord_controller.clients.autoscaler import Scale
from accord_controller.clients.rollout_services import current_services
from accord_controller.clients.service_clients import Services
from accord_controller.clients.usage_meter import UsageMeter
from accord_controller.engine_swap import records
from accord_controller.engine_swap.executor import SwapExecutor
from accord_controller.launchers.launcher import Launcher
from accord_controller.ledger import keys
from accord_controller.ledger.ledger import Ledger
from accord_controller.ledger.recorder import RunRecorder
from accord_controller.runs.reconcile import (
    Cancel,
    DesiredState,
    Fail,
    Nothing,
    Observation,
    Pause,
    Recover,
    RunStage,
    StageFailure,
    Succeed,
    reconcile,
)
from accord_controller.runs.recoverable import is_recoverable
from accord_controller.runs.stop_signal import Stopped, StopSignal
from accord_controller.stages.collect import collect, queue_name
from accord_controller.stages.context import StageContext
from accord_controller.stages.evaluate import evaluate
from accord_controller.stages.policy import policy
from accord_controller.stages.prepare import prepare
from accord_controller.stages.pruning import forget_finished
from accord_controller.stages.reward_model import reward_model
from accord_controller.store.store import Store

T = TypeVar("T")
log = logging.getLogger(__name__)

StageFunction = Callable[[StageContext, int], Awaitable[None]]


async def _prepare(context: StageContext, _iteration: int) -> None:
    await prepare(context)


STAGES: Mapping[controller_v1.Stage.ValueType, StageFunction] = {
    controller_v1.STAGE_PREPARE: _prepare,
    controller_v1.STAGE_COLLECT: collect,
    controller_v1.STAGE_REWARD_MODEL: reward_model,
    controller_v1.STAGE_POLICY: policy,
    controller_v1.STAGE_EVALUATE: evaluate,
}


class Runner:
    """One run at work in this process."""

    def __init__(
        self,
        run_id: str,
        store: Store,
        launcher: Launcher,
        state_dir: Path,
        *,
        lease_seconds: float,
        on_change: Callable[[], None],
        alone: Callable[[], bool] = lambda: True,
        closing: Callable[[], bool] = lambda: False,
    ) -> None:
        """`told` is called whenever the run has changed; `alone`: whether no other run is at work in this process;
        `closing`: whether the process is to end."""
        self.run_id = run_id
        self._store = store
        self._state_dir = state_dir
        self._on_change = on_change
        self._closing = closing
        self._stop_signal = StopSignal()
        self._launcher = launcher.for_run(run_id, self._waiting)
        self._services = Services(self._launcher, run_id, lease_seconds)
        self._context: StageContext | None = None
        self._meter = UsageMeter(self._services)
        self._stage: asyncio.Task[None] | None = None
        self._failure: StageFailure | None = None
        # Facts recorded since the last trouble: none means that recovering did not help.
        self._recoveries = 0
        self._recorder: RunRecorder | None = None
        # Held while the journal is read anew, and while something beside the stage is recorded.
        self._recording = asyncio.Lock()
        self._swap_asked = asyncio.Event()
        self._swapper = SwapExecutor(
            self._launcher,
            self._services.rollouts,
            lease_seconds,
            recorder=self._current_recorder,
            recording=self._recording,
            alone=alone,
        )

    def desired(self, desired: DesiredState) -> None:
        """What the user wants now. Cancelling ends work in flight at once; pausing waits for the next durable point."""
        self._stop_signal.turn(desired)
        if desired is DesiredState.CANCEL:
            self.interrupt()

    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop_signal.stopping.is_set()

    def trainer_token(self) -> str:
        """The token of the trainer's lease while this run holds it."""
        return self._services.token("trainer")

    def interrupt(self) -> None:
        """Ends the work in flight. Nothing recorded is lost; what was not recorded yet is done again."""
        if self._stage is not None:
            self._stage.cancel()

    async def record(self, what: Callable[[RunRecorder], Awaitable[T]]) -> T:
        """Records something beside the stages, which go on. A swap among it is begun."""
        recorder = self._recorder or await self._load()
        async with self._recording:
            result = await what(self._recorder or recorder)
        self._swap_asked.set()
        return result

    async def release(self) -> None:
        """Lets go of what ran for this run alone, when it is not at work any more."""
        try:
            await self._launcher.release()
        except AccordError as error:
            log.warning("run %s: what ran for it was not all deleted: %s", self.run_id, error.message)

    async def drive(self) -> None:
        """Works until the run ends, is paused, or fails."""
        swapping = asyncio.create_task(self._swap_when_asked())

        async def stop_swapping() -> None:
            swapping.cancel()
            await asyncio.gather(swapping, return_exceptions=True)

        try:
            await self._swap_first()
            while True:
                recorder = await self._load()
                match reconcile(recorder.spec, recorder.status, self._observe(recorder)):
                    case RunStage(iteration, stage):
                        await self._run_stage(recorder, iteration, stage)
                    case Recover(delay, message):
                        await self._recover(recorder, delay, message)
                    case Pause():
                        await recorder.change_state(
                            controller_v1.RUN_STATE_PAUSED,
                            "paused",
                            "paused; `accord run --resume` goes on",
                            interrupted=self._closing(),
                        )
                        return
                    case Cancel():
                        await stop_swapping()
                        await self._swapper.give_up()
                        await self._withdraw(recorder)
                        await recorder.change_state(controller_v1.RUN_STATE_CANCELLED, "cancelled", "cancelled")
                        return
                    case Fail(message):
                        await stop_swapping()
                        await self._swapper.end_own()
                        await recorder.change_state(controller_v1.RUN_STATE_FAILED, "failed", message)
                        return
                    case Succeed():
                        await stop_swapping()
                        await self._swapper.give_up()
                        await self._withdraw(recorder)
                        await recorder.change_state(
                            controller_v1.RUN_STATE_SUCCEEDED, "succeeded", _summary(recorder.status)
                        )
                        return
                    case Nothing():
                        return
        finally:
            await stop_swapping()
            await self._services.close()

    async def _load(self) -> RunRecorder:
        """The run as it is recorded, and nothing else: what a failed stage had in memory is gone."""
        async with self._recording:
            self._recorder = RunRecorder(
                self._store,
                await Ledger.load(self._store, self.run_id, self._state_dir),
                await self._store.get_run(self.run_id),
                stage_seconds=await self._store.stage_seconds(self.run_id),
                stage_usage=await self._store.stage_usage(self.run_id),
                on_commit=self._on_change,
                check=self._stop_signal.check,
                serving=lambda: len(self._services.rollouts.addresses),
            )
            return self._recorder

    def _current_recorder(self) -> RunRecorder:
        assert self._recorder is not None, "nothing is swapped before the run was read"
        return self._recorder

    async def _swap_first(self) -> None:
        """A swap that was asked for or begun before comes first: what draws now may be what the run failed for."""
        swap = records.under_way((await self._load()).status)
        if swap is None or self._swapper.weights() is None:
            self._swap_asked.set()
            return
        self._stage = asyncio.create_task(self._swapper.carry_out(swap))
        stopping = asyncio.create_task(self._stop_signal.stopping.wait())
        try:
            await asyncio.wait((self._stage, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (self._stage, stopping):
                task.cancel()
            await asyncio.gather(self._stage, stopping, return_exceptions=True)
            self._stage = None
            self._swap_asked.set()

    async def _swap_when_asked(self) -> None:
        while True:
            await self._swap_asked.wait()
            self._swap_asked.clear()
            swap = records.under_way(self._current_recorder().status)
            if swap is not None:
                try:
                    await self._swapper.carry_out(swap)
                except AccordError as error:
                    # It stays under way: the run that is resumed takes it up.
                    log.error("run %s: swap %d could not be recorded: %s", self.run_id, swap.number, error.message)
                except Exception:
                    log.exception("run %s: swap %d: fault in the controller", self.run_id, swap.number)

    def _observe(self, recorder: RunRecorder) -> Observation:
        finished = keys.finished_stages(recorder.ledger, recorder.spec.iterations)
        return Observation(finished=finished, desired=self._stop_signal.desired, failure=self._failure)

    async def _run_stage(self, recorder: RunRecorder, iteration: int, stage: controller_v1.Stage.ValueType) -> None:
        """Runs a stage in a task of its own, so that it can be interrupted; keeps what went wrong for reconcile."""
        if recorder.status.state != controller_v1.RUN_STATE_RUNNING:
            recorder.status.state = controller_v1.RUN_STATE_RUNNING
        await recorder.enter(iteration, stage)
        context = StageContext(
            recorder, self._services, self._store, self._state_dir, self._stop_signal.check, self._meter
        )
        self._context = context
        self._stage = asyncio.create_task(self._work_on(context, iteration, stage))
        try:
            await self._stage
            self._recoveries = 0
        except Stopped:
            log.info("run %s stops at a durable point", self.run_id)
        except asyncio.CancelledError:
            if self._stop_signal.desired is DesiredState.RUN:
                raise
        except AccordError as error:
            self._remember(recorder, f"{error.message} [{error.reason}]", is_recoverable(error))
        except Exception as error:
            log.exception("run %s: fault in the controller", self.run_id)
            self._remember(recorder, f"fault in the controller: {type(error).__name__}: {error}; see its log", False)
        finally:
            self._stage = None

    async def _work_on(self, context: StageContext, iteration: int, stage: controller_v1.Stage.ValueType) -> None:
        async def restarted(service: str, message: str) -> None:
            await context.recorder.emit("service_restarted", message)

        connected = await asyncio.gather(
            self._services.connect_rollouts(
                lambda: current_services(context.status), context.recorder.emit, Scale.of(context.spec)
            ),
            self._services.connect(on_restart=restarted),
            return_exceptions=True,
        )
        for failed in filter(None, connected):
            raise failed
        async with self._meter.measuring(context.recorder.stage_usage):
            await STAGES[stage](context, iteration)
            if stage in (controller_v1.STAGE_REWARD_MODEL, controller_v1.STAGE_EVALUATE):
                await forget_finished(context)

    async def _waiting(self, message: str) -> None:
        """A service cannot be had yet: said once, and the run may be stopped meanwhile."""
        if message and self._context is not None:
            await self._context.recorder.emit("waiting", message)
        self._stop_signal.check()

    async def _withdraw(self, recorder: RunRecorder) -> None:
        """Takes back the tasks that people were asked to do."""
        if not recorder.spec.feedback.HasField("people"):
            return
        try:
            await self._services.connect(["preference"])
            for iteration in range(1, recorder.status.iteration + 1):
                await self._services.client.preferences.cancel_tasks(queue_name(self.run_id, iteration))
        except AccordError as error:
            await recorder.emit("left_out", f"its annotation tasks stay open: {error.message}")

    def _remember(self, recorder: RunRecorder, message: str, recoverable: bool) -> None:
        log.warning("run %s: %s", self.run_id, message)
        if recorder.facts:
            self._recoveries = 0
        self._failure = StageFailure(message, recoverable, self._recoveries)
        self._recoveries += 1

    async def _recover(self, recorder: RunRecorder, delay: float, message: str) -> None:
        """Waits; the next stage entry finds or restarts the services and puts back what they lost."""
        await recorder.emit("retry", f"{message}; trying again in {delay:g} s", {"delay_seconds": delay})
        self._failure = None
        await self._stop_signal.wait(delay)


def _summary(status: controller_v1.RunStatus) -> str:
    """What a run came to, in a sentence."""
    promoted = [result for result in status.iterations if result.promoted and result.iteration]
    scores = ", ".join(
        f"{result.heldout_score:.3f}" for result in status.iterations if result.HasField("heldout_score")
    )
    return (
        f"{len(promoted)} of {len(status.iterations) - 1} candidates were promoted; held-out scores {scores or 'none'}"
    )
