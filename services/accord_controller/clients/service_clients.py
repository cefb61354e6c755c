"""The controller's hold on the other services: addresses through the launcher, one client, leases renewed meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import accord
from accord.errors import AccordError, FailedPrecondition
from accord_controller.clients.replica_set import ReplicaSet
from accord_controller.launchers.launcher import Launcher, OnRestart

log = logging.getLogger(__name__)

Leased = Literal["rollout", "trainer"]
# All but rollout, of which a run may have several or others than the launcher's.
SINGLE = ("reward", "preference", "trainer")
WAIT_SECONDS = 1.0
# Short: a service that stays away is restarted by the launcher, not waited for.
RETRY = accord.RetryPolicy(attempts=3, first=0.2, longest=1.0)


class Services:
    """One run's connections. `connect` before the first use and after every trouble."""

    def __init__(self, launcher: Launcher, run_id: str, lease_seconds: float) -> None:
        self._launcher = launcher
        self._holder = f"runs/{run_id}"
        self._lease_seconds = lease_seconds
        self._client: accord.Client | None = None
        self._trainer_token = ""
        self.rollouts = ReplicaSet(launcher, run_id, lease_seconds)

    @property
    def client(self) -> accord.Client:
        """The SDK client of the services that there is one of."""
        if self._client is None:
            raise FailedPrecondition("the services were not connected yet", reason="NOT_CONNECTED")
        return self._client

    def token(self, service: Literal["trainer"]) -> str:
        """The token of its lease in force; calls that change something carry it."""
        return self._trainer_token

    async def connect(self, services: Sequence[str] = SINGLE, on_restart: OnRestart | None = None) -> None:
        """Makes sure that these services are up, and takes up with them where they are now. `rollouts` connects by
        itself."""
        addresses = await self._launcher.ensure(services, on_restart)
        if self._client is not None:
            if addresses.items() <= self._client.addresses.items():
                return
            await self._client.close()
        self._client = accord.Client(
            reward=addresses.get("reward"),
            preference=addresses.get("preference"),
            trainer=addresses.get("trainer"),
            retry=RETRY,
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self.rollouts.close()
        if self._client is not None:
            await self._client.close()
            self._client = None

    @asynccontextmanager
    async def leased(self, *services: Leased, waiting: Callable[[str], Awaitable[None]]) -> AsyncIterator[None]:
        """Holds the exclusive use of services for a block, renewing it; gives it back at the end.

        While another run has one, waits, and `waiting` is told who it is.
        """
        for service in services:
            await self._acquire(service, waiting)
        keeping = [asyncio.create_task(self._renew(services))]
        if "rollout" in services:
            keeping.append(asyncio.create_task(self.rollouts.keep_whole()))
        try:
            yield
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
            for service in services:
                await self._release(service)

    async def _acquire(self, service: Leased, waiting: Callable[[str], Awaitable[None]]) -> None:
        told = ""
        while True:
            try:
                await self._ask(service)
                return
            except FailedPrecondition as error:
                if error.reason != "LEASE_HELD":
                    raise
                holder = error.metadata.get("holder", "somebody")
                if holder != told:
                    await waiting(f"waiting: the {service} service is leased to {holder}")
                    told = holder
                await asyncio.sleep(WAIT_SECONDS)
                await waiting("")

    async def _ask(self, service: Leased) -> None:
        if service == "rollout":
            await self.rollouts.acquire()
            return
        lease = await self.client.trainer.acquire_lease(
            self._holder, ttl_seconds=self._lease_seconds, token=self._trainer_token
        )
        self._trainer_token = lease.token

    async def _renew(self, services: Iterable[Leased]) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            for service in services:
                try:
                    await self._ask(service)
                except AccordError as error:
                    # The stage's own call meets the same trouble and deals with it; the next renewal tries again.
                    log.warning("%s: the lease of the %s service was not renewed: %s", self._holder, service, error)

    async def _release(self, service: Leased) -> None:
        if service == "rollout":
            await self.rollouts.release()
            return
        token, self._trainer_token = self._trainer_token, ""
        if not token or self._client is None:
            return
        try:
            await self._client.trainer.release_lease(token, timeout=2)
        except AccordError as error:
            log.warning("%s: the lease of the %s service ends by itself: %s", self._holder, service, error)
