"""Builds the controller from its settings."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import grpc

from accord.controller import v1 as controller_v1
from accord.errors import FailedPrecondition
from accord_controller.handler import ControllerHandler
from accord_controller.launchers.factory import make_launcher
from accord_controller.launchers.launcher import Launcher
from accord_controller.runs.manager import RunManager
from accord_controller.servicer import ModelServicer, RunServicer
from accord_controller.settings import ControllerSettings
from accord_controller.store.store import Store
from accord_runtime.database.schema import bring_up
from accord_runtime.database.transactions import database_url, open_database
from accord_runtime.observability.metrics import Measure

log = logging.getLogger(__name__)


class ControllerService:
    """The service that accord_runtime.serving.server serves."""

    service_names = ("accord.controller.v1.RunService", "accord.controller.v1.ModelService")

    def __init__(
        self, settings: ControllerSettings, store: Store, launcher: Launcher, runs: RunManager, lock: IO[str]
    ) -> None:
        self._settings = settings
        self._store = store
        self._launcher = launcher
        self._runs = runs
        self._lock = lock
        self.handler = ControllerHandler(settings, store, launcher, runs)

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the servicers."""
        controller_v1.add_RunServiceServicer_to_server(RunServicer(self.handler), server)
        controller_v1.add_ModelServiceServicer_to_server(ModelServicer(self.handler), server)

    def measures(self) -> Iterable[Measure]:
        """The service's metrics."""
        yield Measure("accord_controller_runs_at_work", "Active runs.", len(self._runs.active()))

    async def drain(self) -> None:
        """Pauses the runs at their next durable point, which ends the calls that watch them."""
        await self._runs.drain(self._settings.pause_seconds)

    async def close(self) -> None:
        """Pauses active runs, stops the services that this controller started, and closes the database."""
        await self._runs.drain(self._settings.pause_seconds)
        await self._launcher.close()
        await self._store.close()
        self._lock.close()


def database_of(settings: ControllerSettings) -> str:
    """The URL of the controller's database."""
    return database_url(settings.database_url, default=settings.state_dir.absolute() / "controller.db")


async def build(settings: ControllerSettings) -> ControllerService:
    """Opens the database and adopts the runs of an earlier controller. FailedPrecondition, CONTROLLER_RUNS, if another
    controller uses the same state folder."""
    state_dir = settings.state_dir.absolute()
    lock = lock_state_dir(state_dir)
    url = database_of(settings)
    await bring_up(url, "accord_controller", settings)
    store = Store(open_database(url))
    launcher = make_launcher(settings)
    runs = RunManager(store, launcher, settings)
    await runs.adopt_interrupted()
    return ControllerService(settings, store, launcher, runs, lock)


def lock_state_dir(state_dir: Path) -> IO[str]:
    """Locks the state folder, because two controllers would do all work twice. The lock ends with its process."""
    state_dir.mkdir(parents=True, exist_ok=True)
    lock = (state_dir / "controller.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        lock.close()
        raise FailedPrecondition(
            f"Another controller already uses {state_dir} (pid {holder}). Use it, stop it, or pass another --state-dir",
            reason="CONTROLLER_RUNS",
            metadata={"pid": holder},
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
