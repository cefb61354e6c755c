"""Starts, stops and watches the active runs of this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from accord.controller import v1 as controller_v1
from accord.errors import FailedPrecondition
from accord.names import state_name
from accord_controller.launchers.launcher import Launcher
from accord_controller.ledger.ledger import Ledger
from accord_controller.ledger.recorder import RunRecorder
from accord_controller.runs.reconcile import DesiredState
from accord_controller.runs.runner import Runner
from accord_controller.settings import ControllerSettings
from accord_controller.store.store import Store

T = TypeVar("T")
log = logging.getLogger(__name__)

ACTIVE = (controller_v1.RUN_STATE_PENDING, controller_v1.RUN_STATE_RUNNING)
RESUMABLE = (*ACTIVE, controller_v1.RUN_STATE_PAUSED, controller_v1.RUN_STATE_FAILED)


class RunManager:
    """One task for each active run."""

    def __init__(self, store: Store, launcher: Launcher, settings: ControllerSettings) -> None:
        self._store = store
        self._launcher = launcher
        self._settings = settings
        self._active: dict[str, tuple[Runner, asyncio.Task[None]]] = {}
        self._releasing: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._closing = False

    def changed(self) -> asyncio.Event:
        """An event that is set at the next change of any run."""
        return self._changed

    def active(self) -> set[str]:
        """The names of the active runs."""
        return set(self._active)

    def trainer_token(self) -> str:
        """The token of the trainer's lease, if an active run holds it."""
        return next((token for runner, _ in self._active.values() if (token := runner.trainer_token())), "")

    async def adopt_interrupted(self) -> None:
        """Pauses the runs that a killed controller left in the running state. They continue when they are resumed."""
        for run in await self._store.runs_in(ACTIVE):
            recorder = await self._recorder(run)
            await recorder.change_state(
                controller_v1.RUN_STATE_PAUSED,
                "paused",
                f"interrupted when the controller ended. Continue with: accord run --resume {run.run_id}",
                interrupted=True,
            )

    def start(self, run_id: str) -> None:
        """Starts driving a run unless it is already active."""
        if self._closing:
            raise FailedPrecondition(
                "The controller is shutting down. Resume the run after it has restarted", reason="CLOSING"
            )
        if run_id in self._active:
            return
        runner = Runner(
            run_id,
            self._store,
            self._launcher,
            self._settings.state_dir.absolute(),
            lease_seconds=self._settings.lease_seconds,
            on_change=self._notify,
            alone=lambda: self._active.keys() <= {run_id},
            closing=lambda: self._closing,
        )
        task = asyncio.create_task(runner.drive(), name=f"run {run_id}")
        self._active[run_id] = (runner, task)
        task.add_done_callback(lambda done: self._ended(run_id, done))

    async def resume(self, run: controller_v1.Run) -> None:
        """Continues a paused or failed run; does nothing if it is active. FailedPrecondition, RUN_ENDED."""
        active = self._active.get(run.run_id)
        if active is not None:
            runner, task = active
            if not runner.is_stopping():
                return
            await asyncio.wait([task])
            run = await self._store.get_run(run.run_id)
        if run.status.state not in RESUMABLE:
            raise _ended(run, "resumed")
        recorder = await self._recorder(run)
        await recorder.change_state(controller_v1.RUN_STATE_RUNNING, "resumed")
        self.start(run.run_id)

    def pause(self, run: controller_v1.Run) -> None:
        """Pauses a run at its next durable point. FailedPrecondition, RUN_ENDED."""
        active = self._active.get(run.run_id)
        if active is not None:
            active[0].request(DesiredState.PAUSE)
        elif run.status.state not in RESUMABLE:
            raise _ended(run, "paused")

    async def cancel(self, run: controller_v1.Run) -> None:
        """Ends a run for good. FailedPrecondition, RUN_ENDED, if it has succeeded."""
        if run.status.state == controller_v1.RUN_STATE_CANCELLED:
            return
        if run.run_id not in self._active:
            if run.status.state not in RESUMABLE:
                raise _ended(run, "cancelled")
            # The runner does the cancelling, because the run's open annotation tasks must be cancelled too.
            await (await self._recorder(run)).change_state(
                controller_v1.RUN_STATE_RUNNING, "resumed", "to be cancelled"
            )
            self.start(run.run_id)
        runner, task = self._active[run.run_id]
        runner.request(DesiredState.CANCEL)
        await asyncio.wait([task])

    async def record(self, run_id: str, what: Callable[[RunRecorder], Awaitable[T]]) -> T:
        """Records something beside the run's stages. If it records a swap, the swap begins now if the run is active,
        otherwise when the run is resumed."""
        active = self._active.get(run_id)
        if active is not None:
            return await active[0].record(what)
        return await what(await self._recorder(await self._store.get_run(run_id)))

    async def drain(self, seconds: float) -> None:
        """Pauses every run at its next durable point; after `seconds`, interrupts those that have not reached it."""
        self._closing = True
        active = list(self._active.values())
        for runner, _ in active:
            runner.request(DesiredState.PAUSE)
        if not active:
            return
        await asyncio.wait([task for _, task in active], timeout=seconds)
        for runner, task in active:
            if not task.done():
                log.warning("run %s: interrupted; its unrecorded work is repeated on resume", runner.run_id)
                runner.interrupt()
        await asyncio.wait([task for _, task in active])

    async def _recorder(self, run: controller_v1.Run) -> RunRecorder:
        """A recorder for a run that is not active."""
        return RunRecorder(
            self._store,
            await Ledger.load(self._store, run.run_id, self._settings.state_dir.absolute()),
            run,
            stage_seconds=await self._store.stage_seconds(run.run_id),
            stage_usage=await self._store.stage_usage(run.run_id),
            on_commit=self._notify,
            check=lambda: None,
            ticking=False,
        )

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _ended(self, run_id: str, task: asyncio.Task[None]) -> None:
        active = self._active.pop(run_id, None)
        if active is not None and not self._closing:
            self._releasing.add(release := asyncio.create_task(active[0].release(), name=f"release {run_id}"))
            release.add_done_callback(self._releasing.discard)
        if not task.cancelled() and task.exception() is not None:
            log.error("run %s: the controller could not record why the run stopped", run_id, exc_info=task.exception())
        self._notify()


def _ended(run: controller_v1.Run, action: str) -> FailedPrecondition:
    """The error for an action (`resumed`) on a run that has ended."""
    state = state_name(run.status.state)
    how = "has succeeded" if run.status.state == controller_v1.RUN_STATE_SUCCEEDED else f"was {state}"
    return FailedPrecondition(
        f"Run {run.run_id} {how} and cannot be {action}", reason="RUN_ENDED", metadata={"state": state}
    )
