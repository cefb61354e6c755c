"""Measures what the services use while a stage runs, from each service's own report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import accord
from accord.controller import v1 as controller_v1
from accord.errors import AccordError
from accord_controller.clients.service_clients import SINGLE, Services
from accord_controller.launchers.launcher import SERVICES
from accord_runtime.observability import usage

# If a process is killed, its usage after the last reading is lost.
READ_SECONDS = 5.0
# A stage never waits longer than this for a reading.
ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Reading:
    """The report of one process."""

    service: str
    instance: str
    cpu_seconds: float
    gpus: Sequence[str] = ()


class UsageMeter:
    """Adds the usage since the previous reading to the stage's usage. The first reading is only the starting point.

    Each process counts its own processor time, so nothing between two readings is lost while the process lives. GPUs
    count as used since the previous reading.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self.used = controller_v1.StageUsage()
        self._cpu_seconds: dict[str, float] | None = None
        self._known: set[str] = set()
        self._moment = 0.0
        self._reading = asyncio.Lock()

    @asynccontextmanager
    async def measuring(self, used: controller_v1.StageUsage) -> AsyncIterator[None]:
        """Adds to `used` at intervals during a block."""
        self.used = used
        await self.read()
        task = asyncio.create_task(self._keep_reading())
        try:
            yield
        finally:
            task.cancel()

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(READ_SECONDS)
            await self.read()

    async def read(self) -> None:
        """Adds the usage since the last reading. A service that does not answer in time is counted at the next
        reading."""
        async with self._reading:
            single = [self._ask(self._services.client, service) for service in SINGLE]
            replicas = [self._ask_replica(address) for address in self._services.rollouts.addresses]
            answers = await asyncio.gather(*single, *replicas)
            own = usage.own()
            readings = [reading for reading in answers if reading is not None]
            readings.append(Reading("controller", own.instance, own.cpu_seconds))
            self.add({reading.instance: reading for reading in reversed(readings)}, time.monotonic())

    def add(self, readings: Mapping[str, Reading], moment: float) -> None:
        """Adds readings, by instance, taken at `moment` (monotonic seconds)."""
        before = self._cpu_seconds
        self._cpu_seconds = {**(before or {}), **{name: one.cpu_seconds for name, one in readings.items()}}
        self._known |= {reading.service for reading in readings.values()}
        del self.used.unknown[:]
        self.used.unknown.extend(sorted({*SERVICES} - self._known))
        elapsed, self._moment = moment - self._moment, moment
        if before is None:
            return
        for reading in readings.values():
            # An instance without an earlier reading started during the stage, so all its usage belongs to this stage.
            used = max(0.0, reading.cpu_seconds - before.get(reading.instance, 0.0))
            self.used.cpu_seconds[reading.service] += used
        gpus = {gpu for reading in readings.values() for gpu in reading.gpus}
        if gpus:
            self.used.gpu_seconds += len(gpus) * elapsed

    async def _ask_replica(self, address: str) -> Reading | None:
        async with accord.Client(rollout=address) as client:
            return await self._ask(client, "rollout")

    async def _ask(self, client: accord.Client, service: str) -> Reading | None:
        try:
            answer = await client.usage.of(service, timeout=ANSWER_SECONDS)
        except AccordError:
            return None
        return Reading(service, answer.instance, answer.cpu_seconds, answer.gpus)
