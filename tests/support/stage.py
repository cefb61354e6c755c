"""A run in the middle of a stage, with a real trainer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.controller import add_run, open_recorder, open_store
from tests.support.trainer import trainer

import accord
from accord_controller.clients.service_clients import Services
from accord_controller.clients.usage_meter import UsageMeter
from accord_controller.launchers.static import StaticAddresses
from accord_controller.settings import ControllerSettings
from accord_controller.stages.context import StageContext


@asynccontextmanager
async def stage_context(
    folder: Path, trainer_name: str = "trainer", *, deterministic: bool = True
) -> AsyncIterator[tuple[StageContext, accord.Client]]:
    """The context of a stage and the trainer's client. Another `trainer_name`: a trainer that has lost everything."""
    async with open_store(folder) as store, trainer(folder / trainer_name) as client:
        await add_run(store, deterministic=deterministic)
        settings = ControllerSettings(
            state_dir=folder, launcher="none", trainer_address=client.addresses["trainer"], start_seconds=10
        )
        services = Services(StaticAddresses(settings), "demo", 60)
        await services.connect(["trainer"])
        recorder = await open_recorder(store, folder)
        yield StageContext(recorder, services, store, folder, lambda: None, UsageMeter(services)), client
        await services.close()
