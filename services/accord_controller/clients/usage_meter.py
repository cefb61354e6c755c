"""What the services use while a stage is at work, taken from what each of them says of itself, wherever it runs."""

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

# What a process that is killed used after the last look is not known.
LOOK_SECONDS = 5.0
# A look is never what a stage waits for.
ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Look:
    """What one process said."""

    service: str
    instance: str
    cpu_seconds: float
    gpus: Sequence[str] = ()


class UsageMeter:
    """Adds to a stage's usage what was used since the look before; the first look only says from where to count.

    Processor time is each process's own count, so nothing between two looks is lost while it lives. GPUs are taken to
    have been held from the look before.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self.used = controller_v1.StageUsage()
        self._seconds: dict[str, float] | None = None
        self._known: set[str] = set()
        self._moment = 0.0
        self._one = asyncio.Lock()

    @asynccontextmanager
    async def at_work(self, used: controller_v1.StageUsage) -> AsyncIterator[None]:
        """Counts into `used`, now and then, for the length of a block."""
        self.used = used
        await self.look()
        following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            following.cancel()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Adds what was used since the last look. A service that does not answer in time is counted by the next one."""
        async with self._one:
            single = [self._ask(self._services.client, service) for service in SINGLE]
            drawing = [self._ask_replica(address) for address in self._services.rollouts.addresses]
            answers = await asyncio.gather(*single, *drawing)
            own = usage.own()
            looks = [look for look in answers if look is not None]
            looks.append(Look("controller", own.instance, own.cpu_seconds))
            self.add({look.instance: look for look in reversed(looks)}, time.monotonic())

    def add(self, looks: Mapping[str, Look], moment: float) -> None:
        """Adds one look: by instance, at `moment` (monotonic seconds)."""
        before, self._seconds = self._seconds, {**(self._seconds or {}), **{i: x.cpu_seconds for i, x in looks.items()}}
        self._known |= {look.service for look in looks.values()}
        del self.used.unknown[:]
        self.used.unknown.extend(sorted({*SERVICES} - self._known))
        elapsed, self._moment = moment - self._moment, moment
        if before is None:
            return
        for look in looks.values():
            # An instance that was not there before began meanwhile: all that it used is this stage's.
            self.used.cpu_seconds[look.service] += max(0.0, look.cpu_seconds - before.get(look.instance, 0.0))
        gpus = {gpu for look in looks.values() for gpu in look.gpus}
        if gpus:
            self.used.gpu_seconds += len(gpus) * elapsed

    async def _ask_replica(self, address: str) -> Look | None:
        async with accord.Client(rollout=address) as client:
            return await self._ask(client, "rollout")

    async def _ask(self, client: accord.Client, service: str) -> Look | None:
        try:
            said = await client.usage.of(service, timeout=ANSWER_SECONDS)
        except AccordError:
            return None
        return Look(service, said.instance, said.cpu_seconds, said.gpus)
