"""The controller's hold on the other services: addresses through the launcher, one client, leases renewed meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Literal

import accord
from accord.errors import AccordError, FailedPrecondition
from accord_controller.launchers.launcher import SERVICES, Launcher, OnRestart

log = logging.getLogger(__name__)

Leased = Literal["rollout", "trainer"]
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
        self._tokens: dict[Leased, str] = {}

    @property
    def client(self) -> accord.Client:
        """The SDK client of the four services."""
        if self._client is None:
            raise FailedPrecondition("the services were not connected yet", reason="NOT_CONNECTED")
        return self._client

    def token(self, service: Leased) -> str:
        """The token of the lease in force; calls that change something carry it."""
        return self._tokens.get(service, "")

    async def connect(self, services: Iterable[str] = SERVICES, on_restart: OnRestart | None = None) -> None:
        """Makes sure that the services are up, and takes up with them where they are now."""
        addresses = await self._launcher.ensure(services, on_restart)
        if self._client is not None:
            if addresses.items() <= self._client.addresses.items():
                return
            await self._client.close()
        self._client = accord.Client(
            rollout=addresses.get("rollout"),
            reward=addresses.get("reward"),
            preference=addresses.get("preference"),
            trainer=addresses.get("trainer"),
            retry=RETRY,
        )

    async def close(self) -> None:
        """Closes the client."""
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
        renewal = asyncio.create_task(self._renew(services))
        try:
            yield
        finally:
            renewal.cancel()
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
        area = self.client.rollout if service == "rollout" else self.client.trainer
        lease = await area.acquire_lease(
            self._holder, ttl_seconds=self._lease_seconds, token=self._tokens.get(service, "")
        )
        self._tokens[service] = lease.token

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
        token = self._tokens.pop(service, "")
        if not token or self._client is None:
            return
        area = self._client.rollout if service == "rollout" else self._client.trainer
        try:
            await area.release_lease(token, timeout=2)
        except AccordError as error:
            log.warning("%s: the lease of the %s service ends by itself: %s", self._holder, service, error)
