"""What a stage works with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import accord
from accord.controller import v1 as controller_v1
from accord_controller.clients.replica_set import ReplicaSet
from accord_controller.clients.service_clients import Leased, Services
from accord_controller.clients.usage_meter import UsageMeter
from accord_controller.ledger.ledger import Ledger
from accord_controller.ledger.recorder import RunRecorder
from accord_controller.stages.seeds import seed_for
from accord_controller.store.store import Store


@dataclass(frozen=True)
class StageContext:
    """A run in the hands of a stage."""

    journal: RunRecorder
    services: Services
    store: Store
    state_dir: Path
    # Raises when the run should stop: asked wherever stopping loses nothing.
    check: Callable[[], None]
    # Counts what the stage uses.
    meter: UsageMeter

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.journal.run_id

    @property
    def spec(self) -> controller_v1.RunSpec:
        """The resolved spec."""
        return self.journal.spec

    @property
    def ledger(self) -> Ledger:
        """What is recorded."""
        return self.journal.ledger

    @property
    def status(self) -> controller_v1.RunStatus:
        """How the run is doing."""
        return self.journal.status

    @property
    def rollout(self) -> ReplicaSet:
        """The run's rollout services, as one."""
        return self.services.rollouts

    @property
    def client(self) -> accord.Client:
        """The other services."""
        return self.services.client

    def seed(self, *parts: object) -> int:
        """The run's seed for one purpose."""
        return seed_for(self.spec.seed, *parts)

    @asynccontextmanager
    async def leased(self, *services: Leased) -> AsyncIterator[None]:
        """Exclusive use of services for a block."""

        async def waiting(message: str) -> None:
            if message:
                await self.journal.tell("waiting", message)
            self.check()

        async with self.services.leased(*services, waiting=waiting):
            yield


def key(iteration: int, *parts: object) -> str:
    """A ledger key: `2/policy/00007/step`. Numbers are padded, so that keys sort as they happened."""
    return "/".join([str(iteration), *(f"{part:05d}" if isinstance(part, int) else str(part) for part in parts)])
