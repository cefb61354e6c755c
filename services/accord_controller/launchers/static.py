"""Fixed addresses: uses running services at the addresses in the settings (`--launcher none`)."""

from __future__ import annotations

from collections.abc import Iterable

from accord.errors import FailedPrecondition
from accord_controller.launchers.health import healthy_addresses, resolve, wait_healthy
from accord_controller.launchers.launcher import OnRestart, OnWaiting, RolloutSet, check_services
from accord_controller.settings import ControllerSettings


class StaticAddresses:
    """Waits until the services are healthy; starts and stops nothing."""

    starts_services = False
    shares_plugins = True

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings

    def for_run(self, run_id: str, on_waiting: OnWaiting) -> StaticAddresses:
        """Itself: runs share their services."""
        return self

    async def ensure(self, services: Iterable[str], on_restart: OnRestart | None = None) -> dict[str, str]:
        """The addresses. FailedPrecondition, NO_ADDRESS, for one that is not set; Unavailable for one that is down."""
        addresses = {name: self._settings.address(name) for name in check_services(services)}
        for name, address in addresses.items():
            if not address:
                raise _no_address(name)
        for name, address in addresses.items():
            await wait_healthy(name, address, self._settings.start_seconds)
        return addresses

    async def ensure_rollouts(self, wanted: RolloutSet, on_restart: OnRestart | None = None) -> list[str]:
        """The healthy rollout services at the addresses in the settings, whatever engine they run. Unavailable if none
        answers."""
        if wanted.name:
            raise FailedPrecondition(
                "this controller starts no services (--launcher none). Start the engine and pass its address",
                reason="NO_LAUNCHER",
            )
        if not self._settings.rollout_addresses:
            raise _no_address("rollout")
        addresses = await resolve(self._settings.rollout_addresses)
        return await healthy_addresses(addresses, self._settings.start_seconds)

    async def end_rollouts(self, ended: RolloutSet, *, keep: int = 0) -> None:
        """Nothing to stop."""

    async def release(self) -> None:
        """Nothing to do: no service belongs to a single run."""

    async def close(self) -> None:
        """Nothing to stop."""


def _no_address(name: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the address of the {name} service is not set. Pass --{name}-address, or --launcher local to start one",
        reason="NO_ADDRESS",
    )
