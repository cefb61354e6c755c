"""No launcher: services that somebody else runs, at addresses from the settings."""

from __future__ import annotations

from collections.abc import Iterable

from accord.errors import FailedPrecondition
from accord_controller.launchers.health import wait_healthy
from accord_controller.launchers.launcher import OnRestart, check_services
from accord_controller.settings import ControllerSettings


class GivenAddresses:
    """Waits until the services are healthy; starts and stops nothing."""

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings

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

    async def close(self) -> None:
        """Nothing to stop."""
