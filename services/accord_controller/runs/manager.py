"""The runs at work in this process: started, stopped, watched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from accord.controller import v1 as controller_v1
from accord.errors import FailedPrecondition
from accord_controller.launchers.launcher import Launcher
from accord_controller.ledger.ledger import Ledger
from accord_controller.ledger.recorder import RunRecorder
from accord_controller.runs.reconcile import DesiredState
from accord_controller.runs.runner import Runner
from accord_controller.settings import ControllerSettings
from accord_controller.store.store import Store

T = TypeVar("T")
log = logging.getLogger(__name__)

AT_WORK = (controller_v1.RUN_STATE_PENDING, controller_v1.RUN_STATE_RUNNING)
NOT_ENDED = (*AT_WORK, controller_v1.RUN_STATE_PAUSED, controller_v1.RUN_STATE_FAILED)


class RunManager:
    """One task for each run that is at work."""

    def __init__(self, store: Store, launcher: Launcher, settings: ControllerSettings) -> None:
        self._store = store
        self._launcher = launcher
        self._settings = settings
        self._active: dict[str, tuple[Runner, asyncio.Task[None]]] = {}
        self._releasing: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._closing = False

    def changed(self) -> asyncio.Event:
        """An event that is set when any run changes next."""
        return self._changed

    def active(self) -> set[str]:
        """Names of the runs at work."""
        return set(self._active)

    def trainer_token(self) -> str:
        """The token of the trainer's lease, where a run of ours holds it."""
        return next((token for runner, _ in self._active.values() if (token := runner.trainer_token())), "")

    async def adopt_interrupted(self) -> None:
        """Runs that a killed controller left running are paused: they go on when they are resumed."""
        for run in await self._store.runs_in(AT_WORK):
            recorder = await self._recorder(run)
            await recorder.change_state(
                controller_v1.RUN_STATE_PAUSED,
                "paused",
                "interrupted: the controller ended; nothing recorded is lost, `accord run --resume` goes on",
                interrupted=True,
            )

    def start(self, run_id: str) -> None:
        """Works on a run, unless that is done already."""
        if self._closing:
            raise FailedPrecondition("the controller is shutting down; resume the run when it is up", reason="CLOSING")
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
        """Goes on with a paused or failed run; a run at work is left alone. FailedPrecondition, RUN_ENDED."""
        at_work = self._active.get(run.run_id)
        if at_work is not None:
            runner, task = at_work
            if not runner.is_stopping():
                return
            await asyncio.wait([task])
            run = await self._store.get_run(run.run_id)
        if run.status.state not in NOT_ENDED:
            raise ended(run)
        recorder = await self._recorder(run)
        await recorder.change_state(controller_v1.RUN_STATE_RUNNING, "resumed")
        self.start(run.run_id)

    def pause(self, run: controller_v1.Run) -> None:
        """Stops a run at its next durable point. FailedPrecondition, RUN_ENDED."""
        at_work = self._active.get(run.run_id)
        if at_work is not None:
            at_work[0].desired(DesiredState.PAUSE)
        elif run.status.state not in NOT_ENDED:
            raise ended(run)

    async def cancel(self, run: controller_v1.Run) -> None:
        """Ends a run for good. FailedPrecondition, RUN_ENDED, when it has succeeded."""
        if run.status.state == controller_v1.RUN_STATE_CANCELLED:
            return
        if run.run_id not in self._active:
            if run.status.state not in NOT_ENDED:
                raise ended(run)
            # Cancelling is work too: what the run asked of people is withdrawn.
            await (await self._recorder(run)).change_state(
                controller_v1.RUN_STATE_RUNNING, "resumed", "to be cancelled"
            )
            self.start(run.run_id)
        runner, task = self._active[run.run_id]
        runner.desired(DesiredState.CANCEL)
        await asyncio.wait([task])

    async def record(self, run_id: str, what: Callable[[RunRecorder], Awaitable[T]]) -> T:
        """Records something beside the work on a run. A swap among it is begun now where the run is at work, else when
        it is resumed."""
        at_work = self._active.get(run_id)
        if at_work is not None:
            return await at_work[0].record(what)
        return await what(await self._recorder(await self._store.get_run(run_id)))

    async def drain(self, seconds: float) -> None:
        """Pauses every run at its next durable point, and where that is not reached in time, before it."""
        self._closing = True
        at_work = list(self._active.values())
        for runner, _ in at_work:
            runner.desired(DesiredState.PAUSE)
        if not at_work:
            return
        await asyncio.wait([task for _, task in at_work], timeout=seconds)
        for runner, task in at_work:
            if not task.done():
                log.warning("run %s is interrupted; what it was doing is done again on resume", runner.run_id)
                runner.interrupt()
        await asyncio.wait([task for _, task in at_work])

    async def _recorder(self, run: controller_v1.Run) -> RunRecorder:
        """For changing the state of a run that is not at work."""
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
        at_work = self._active.pop(run_id, None)
        if at_work is not None and not self._closing:
            self._releasing.add(release := asyncio.create_task(at_work[0].release(), name=f"release {run_id}"))
            release.add_done_callback(self._releasing.discard)
        if not task.cancelled() and task.exception() is not None:
            log.error("run %s: the controller could not even record why it stopped", run_id, exc_info=task.exception())
        self._notify()


def ended(run: controller_v1.Run) -> FailedPrecondition:
    """The error for a run that is over."""
    state = controller_v1.RunState.Name(run.status.state).removeprefix("RUN_STATE_").lower()
    return FailedPrecondition(
        f"run {run.run_id} has {state}: it cannot go on or be stopped", reason="RUN_ENDED", metadata={"state": state}
    )
