"""Drives one run: observes, reconciles and acts, until there is nothing left to do."""

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
from accord_controller.stages.pruning import delete_finished_trainings
from accord_controller.stages.reward_model import reward_model
from accord_controller.store.store import Store

T = TypeVar("T")
log = logging.getLogger(__name__)

StageFunction = Callable[[StageContext, int], Awaitable[None]]


async def _prepare(context: StageContext, _iteration: int) -> None:
    await prepare(context)


STAGE_FUNCTIONS: Mapping[controller_v1.Stage.ValueType, StageFunction] = {
    controller_v1.STAGE_PREPARE: _prepare,
    controller_v1.STAGE_COLLECT: collect,
    controller_v1.STAGE_REWARD_MODEL: reward_model,
    controller_v1.STAGE_POLICY: policy,
    controller_v1.STAGE_EVALUATE: evaluate,
}


class Runner:
    """Drives one active run."""

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
        """`on_change` is called after each change of the run; `alone`: whether no other run is active in this process;
        `closing`: whether the process is shutting down."""
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
        # Recoveries since the stage last made progress.
        self._recoveries = 0
        self._recorder: RunRecorder | None = None
        # Held while the recorder is replaced and while anything is recorded outside the stage.
        self._recording = asyncio.Lock()
        self._swap_requested = asyncio.Event()
        self._swapper = SwapExecutor(
            self._launcher,
            self._services.rollouts,
            lease_seconds,
            recorder=self._current_recorder,
            recording=self._recording,
            alone=alone,
        )

    def request(self, desired: DesiredState) -> None:
        """Requests a state. Cancelling interrupts the stage at once; pausing waits for the next durable point."""
        self._stop_signal.set(desired)
        if desired is DesiredState.CANCEL:
            self.interrupt()

    def is_stopping(self) -> bool:
        """Whether a stop was requested."""
        return self._stop_signal.stopping.is_set()

    def trainer_token(self) -> str:
        """The token of the trainer's lease while this run holds it."""
        return self._services.token("trainer")

    def interrupt(self) -> None:
        """Cancels the stage. No recorded work is lost; unrecorded work is repeated."""
        if self._stage is not None:
            self._stage.cancel()

    async def record(self, what: Callable[[RunRecorder], Awaitable[T]]) -> T:
        """Records something beside the running stage. If it records a swap, the swap begins."""
        recorder = self._recorder or await self._load()
        async with self._recording:
            result = await what(self._recorder or recorder)
        self._swap_requested.set()
        return result

    async def release(self) -> None:
        """Releases the services that ran for this run alone, once it is no longer active."""
        try:
            await self._launcher.release()
        except AccordError as error:
            log.warning("run %s: some of its services could not be deleted: %s", self.run_id, error.message)

    async def drive(self) -> None:
        """Drives the run until it ends, is paused, or fails."""
        swapping = asyncio.create_task(self._execute_requested_swaps())

        async def stop_swapping() -> None:
            swapping.cancel()
            await asyncio.gather(swapping, return_exceptions=True)

        try:
            await self._finish_open_swap()
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
                            f"paused. Continue with: accord run --resume {self.run_id}",
                            interrupted=self._closing(),
                        )
                        return
                    case Cancel():
                        await stop_swapping()
                        await self._swapper.finish()
                        await self._cancel_tasks(recorder)
                        await recorder.change_state(controller_v1.RUN_STATE_CANCELLED, "cancelled", "cancelled")
                        return
                    case Fail(message):
                        await stop_swapping()
                        await self._swapper.stop_services()
                        await recorder.change_state(controller_v1.RUN_STATE_FAILED, "failed", message)
                        return
                    case Succeed():
                        await stop_swapping()
                        await self._swapper.finish()
                        await self._cancel_tasks(recorder)
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
        """Reads the recorded run. Anything that a failed stage held only in memory is lost."""
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
        assert self._recorder is not None, "swaps begin after the run has been read"
        return self._recorder

    async def _finish_open_swap(self) -> None:
        """Executes an open swap before the first stage: the run may have failed because of its current engine."""
        swap = records.in_progress((await self._load()).status)
        if swap is None or self._swapper.weights() is None:
            self._swap_requested.set()
            return
        self._stage = asyncio.create_task(self._swapper.execute(swap))
        stopping = asyncio.create_task(self._stop_signal.stopping.wait())
        try:
            await asyncio.wait((self._stage, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (self._stage, stopping):
                task.cancel()
            await asyncio.gather(self._stage, stopping, return_exceptions=True)
            self._stage = None
            self._swap_requested.set()

    async def _execute_requested_swaps(self) -> None:
        while True:
            await self._swap_requested.wait()
            self._swap_requested.clear()
            swap = records.in_progress(self._current_recorder().status)
            if swap is not None:
                try:
                    await self._swapper.execute(swap)
                except AccordError as error:
                    # The swap stays open; the resumed run continues it.
                    log.error("run %s: swap %d could not be recorded: %s", self.run_id, swap.number, error.message)
                except Exception:
                    log.exception("run %s: swap %d: internal error", self.run_id, swap.number)

    def _observe(self, recorder: RunRecorder) -> Observation:
        finished = keys.finished_stages(recorder.ledger, recorder.spec.iterations)
        return Observation(finished=finished, desired=self._stop_signal.desired, failure=self._failure)

    async def _run_stage(self, recorder: RunRecorder, iteration: int, stage: controller_v1.Stage.ValueType) -> None:
        """Runs a stage as a task so that it can be interrupted, and keeps its failure for reconcile."""
        if recorder.status.state != controller_v1.RUN_STATE_RUNNING:
            recorder.status.state = controller_v1.RUN_STATE_RUNNING
        await recorder.enter(iteration, stage)
        context = StageContext(
            recorder, self._services, self._store, self._state_dir, self._stop_signal.check, self._meter
        )
        self._context = context
        self._stage = asyncio.create_task(self._execute_stage(context, iteration, stage))
        try:
            await self._stage
            self._recoveries = 0
        except Stopped:
            log.info("run %s: stopped at a durable point", self.run_id)
        except asyncio.CancelledError:
            if self._stop_signal.desired is DesiredState.RUN:
                raise
        except AccordError as error:
            self._note_failure(recorder, f"{error.message} [{error.reason}]", is_recoverable(error))
        except Exception as error:
            log.exception("run %s: internal error", self.run_id)
            self._note_failure(
                recorder, f"internal error in the controller: {type(error).__name__}: {error}; see its log", False
            )
        finally:
            self._stage = None

    async def _execute_stage(self, context: StageContext, iteration: int, stage: controller_v1.Stage.ValueType) -> None:
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
            await STAGE_FUNCTIONS[stage](context, iteration)
            if stage in (controller_v1.STAGE_REWARD_MODEL, controller_v1.STAGE_EVALUATE):
                await delete_finished_trainings(context)

    async def _waiting(self, message: str) -> None:
        """Reports once why a service is not available yet. The run can still be stopped while it waits."""
        if message and self._context is not None:
            await self._context.recorder.emit("waiting", message)
        self._stop_signal.check()

    async def _cancel_tasks(self, recorder: RunRecorder) -> None:
        """Cancels the run's open annotation tasks."""
        if not recorder.spec.feedback.HasField("people"):
            return
        try:
            await self._services.connect(["preference"])
            for iteration in range(1, recorder.status.iteration + 1):
                await self._services.client.preferences.cancel_tasks(queue_name(self.run_id, iteration))
        except AccordError as error:
            await recorder.emit("left_out", f"the open annotation tasks could not be cancelled: {error.message}")

    def _note_failure(self, recorder: RunRecorder, message: str, recoverable: bool) -> None:
        log.warning("run %s: %s", self.run_id, message)
        if recorder.facts:
            self._recoveries = 0
        self._failure = StageFailure(message, recoverable, self._recoveries)
        self._recoveries += 1

    async def _recover(self, recorder: RunRecorder, delay: float, message: str) -> None:
        """Waits before the next stage entry, which finds or restarts the services and restores their state."""
        await recorder.emit("retry", f"{message}; retrying in {delay:g} s", {"delay_seconds": delay})
        self._failure = None
        await self._stop_signal.wait(delay)


def _summary(status: controller_v1.RunStatus) -> str:
    """The outcome of a run in one sentence."""
    promoted = [result for result in status.iterations if result.promoted and result.iteration]
    scores = ", ".join(
        f"{result.heldout_score:.3f}" for result in status.iterations if result.HasField("heldout_score")
    )
    return (
        f"{len(promoted)} of {len(status.iterations) - 1} candidates were promoted; held-out scores {scores or 'none'}"
    )
