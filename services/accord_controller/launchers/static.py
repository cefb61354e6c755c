"""No launcher: services that somebody else runs, at addresses from the settings."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable

from accord.errors import FailedPrecondition, Unavailable
from accord_controller.launchers.health import those_up, wait_healthy
from accord_controller.launchers.launcher import OnRestart, OnWaiting, RolloutSet, check_services
from accord_controller.settings import ControllerSettings

# How an address begins that stands for several: gRPC's own way to write a name.
DNS = "dns:///"


class StaticAddresses:
    """Waits until the services are healthy; starts and stops nothing."""

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings

    def for_run(self, run_id: str, on_waiting: OnWaiting) -> StaticAddresses:
        """Itself: runs share their services."""
        return self

    async def ensure(self, services: Iterable[str], on_restart: OnRestart | None = None) -> dict[str, str]:
        """The addresses. FailedPrecondition, NO_ADDRESS: one is not given; Unavailable: one is down."""
        addresses = {name: self._settings.address(name) for name in check_services(services)}
        for name, address in addresses.items():
            if not address:
                raise FailedPrecondition(
                    f"no address of the {name} service: give --{name}-address, or --launcher local", reason="NO_ADDRESS"
                )
        for name, address in addresses.items():
            await wait_healthy(name, address, self._settings.start_seconds)
        return addresses

    async def ensure_rollouts(self, wanted: RolloutSet, on_restart: OnRestart | None = None) -> list[str]:
        """The rollout services whose addresses are given, whatever they run. Unavailable where none answers."""
        if wanted.name:
            raise FailedPrecondition(
                "nothing starts services here (--launcher none): start the engine and name its address",
                reason="NO_LAUNCHER",
            )
        if not self._settings.rollout_addresses:
            raise FailedPrecondition(
                "no address of the rollout service: give --rollout-address, or --launcher local", reason="NO_ADDRESS"
            )
        addresses = await resolved(self._settings.rollout_addresses)
        return await healthy_ones(addresses, self._settings.start_seconds)

    async def end_rollouts(self, ended: RolloutSet, *, keep: int = 0) -> None:
        """Nothing to stop."""

    async def release(self) -> None:
        """Nothing runs for one run alone."""

    async def close(self) -> None:
        """Nothing to stop."""


async def resolved(addresses: Iterable[str]) -> list[str]:
    """`dns:///name:port` stands for every address that the name has now, in a cluster those of a headless Service's
    pods; others are as they are. Unavailable, NO_SUCH_NAME, for a name without one."""
    found: list[str] = []
    for address in addresses:
        if not address.startswith(DNS):
            found.append(address)
            continue
        name, _, port = address.removeprefix(DNS).rpartition(":")
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(name, int(port), type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"{address}: no rollout service has that name now ({error}); it is written {DNS}NAME:PORT",
                reason="NO_SUCH_NAME",
                metadata={"service": "rollout", "address": address},
            ) from error
        hosts = dict.fromkeys(str(info[4][0]) for info in infos)
        found += [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts]
    return found


async def healthy_ones(addresses: Iterable[str], seconds: float) -> list[str]:
    """Those rollout services that answer within `seconds`. Unavailable, SERVICE_DOWN, where none does."""

    async def answering(address: str) -> str:
        await wait_healthy("rollout", address, seconds)
        return address

    return await those_up(answering(address) for address in addresses)
