"""The controller's connections to the other services: addresses from the launcher, one SDK client, leases renewed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import accord
from accord.controller import v1 as controller_v1
from accord.errors import AccordError, FailedPrecondition
from accord_controller.clients.autoscaler import Autoscaler, Scale
from accord_controller.clients.repair import keep_repaired
from accord_controller.clients.replica_set import Emit, ReplicaSet
from accord_controller.launchers.launcher import Launcher, OnRestart

log = logging.getLogger(__name__)

Leased = Literal["rollout", "trainer"]
# All services but rollout: a run may have several rollout services, or ones that the launcher did not start.
SINGLE = ("reward", "preference", "trainer")
WAIT_SECONDS = 1.0
# Short, because the launcher restarts a service that does not answer.
RETRY = accord.RetryPolicy(attempts=3, first=0.2, longest=1.0)


class Services:
    """One run's connections. Connect before the first use and after every failure."""

    def __init__(self, launcher: Launcher, run_id: str, lease_seconds: float) -> None:
        self._launcher = launcher
        self._holder = f"runs/{run_id}"
        self._lease_seconds = lease_seconds
        self._client: accord.Client | None = None
        self._trainer_token = ""
        self.rollouts = ReplicaSet(launcher, run_id, lease_seconds)
        self._autoscaler = Autoscaler(self.rollouts)

    @property
    def client(self) -> accord.Client:
        """The SDK client of the single services. FailedPrecondition, NOT_CONNECTED."""
        if self._client is None:
            raise FailedPrecondition("the services are not connected yet", reason="NOT_CONNECTED")
        return self._client

    def token(self, service: Literal["trainer"]) -> str:
        """The token of the current lease. Calls that change state carry it."""
        return self._trainer_token

    async def connect(self, services: Sequence[str] = SINGLE, on_restart: OnRestart | None = None) -> None:
        """Makes sure that these single services are up and connects to their current addresses."""
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

    async def connect_rollouts(
        self,
        services: Callable[[], controller_v1.RolloutServices],
        emit: Emit | None = None,
        scale: Scale | None = None,
    ) -> None:
        """Does the same for the rollout services; see `ReplicaSet.connect`. With a scale, their number follows the
        load."""
        await self.rollouts.connect(services, emit)
        self._autoscaler.start(scale)

    async def close(self) -> None:
        """Closes the connections."""
        await self._autoscaler.close()
        await self.rollouts.close()
        if self._client is not None:
            await self._client.close()
            self._client = None

    @asynccontextmanager
    async def leased(self, *services: Leased, waiting: Callable[[str], Awaitable[None]]) -> AsyncIterator[None]:
        """Holds the exclusive use of services during a block, and renews the leases.

        Waits while another run holds a lease. `waiting` receives a message when the holder changes, and "" on each
        retry.
        """
        for service in services:
            await self._acquire(service, waiting)
        background = [asyncio.create_task(self._renew(services))]
        if "rollout" in services:
            background.append(asyncio.create_task(keep_repaired(self.rollouts)))
        try:
            yield
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            for service in services:
                await self._release(service)

    async def _acquire(self, service: Leased, waiting: Callable[[str], Awaitable[None]]) -> None:
        known_holder = ""
        while True:
            try:
                await self._acquire_once(service)
                return
            except FailedPrecondition as error:
                if error.reason != "LEASE_HELD":
                    raise
                holder = error.metadata.get("holder", "another client")
                if holder != known_holder:
                    await waiting(f"waiting: the {service} service is in use by {_described(holder)}")
                    known_holder = holder
                await asyncio.sleep(WAIT_SECONDS)
                await waiting("")

    async def _acquire_once(self, service: Leased) -> None:
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
                    await self._acquire_once(service)
                except AccordError as error:
                    # The stage's own call fails in the same way and handles it. The next renewal tries again.
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
            log.warning(
                "%s: the lease of the %s service was not released and expires: %s", self._holder, service, error
            )


def _described(holder: str) -> str:
    """`run demo` for `runs/demo`."""
    return f"run {holder.removeprefix('runs/')}" if holder.startswith("runs/") else holder
