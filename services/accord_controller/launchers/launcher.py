"""The seam: what the controller asks of a launcher.

A launcher plugs in by an entry point of the group `accord.launchers`: a callable that takes the controller's settings.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from accord.errors import InvalidArgument
from accord_controller.settings import ControllerSettings

SERVICES = ("rollout", "reward", "preference", "trainer")

# Called with (service, message) after a service that had been healthy was found dead and was restarted.
OnRestart = Callable[[str, str], Awaitable[None]]
# Called with the reason why a service is not available yet, then with "" while the wait continues; raises to end it.
OnWaiting = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class RolloutSet:
    """Rollout services that serve together: `replicas` of one engine with the same `options` (JSON).

    `name`: empty for the set that all runs share, which `ensure` knows as `rollout`.
    """

    engine: str = ""
    replicas: int = 1
    options: str = ""
    name: str = ""


class Launcher(Protocol):
    """Runs services, or knows where they run."""

    # Whether it can start the engine that a swap names.
    starts_services: bool
    # Whether the services that it starts have the plugins that are installed here, so that names in a spec are checked.
    shares_plugins: bool

    def for_run(self, run_id: str, on_waiting: OnWaiting) -> Launcher:
        """The launcher of one run: itself where runs share their services."""
        ...

    async def ensure(self, services: Iterable[str], on_restart: OnRestart | None = None) -> dict[str, str]:
        """Addresses of healthy services: found, started or restarted. Unavailable, with the reason and the end of its
        log, for one that does not come up."""
        ...

    async def ensure_rollouts(self, wanted: RolloutSet, on_restart: OnRestart | None = None) -> list[str]:
        """Addresses of the healthy services of a set: found, started or restarted. Unavailable where none comes up;
        FailedPrecondition, NO_LAUNCHER, for a set that this launcher cannot start."""
        ...

    async def end_rollouts(self, ended: RolloutSet, *, keep: int = 0) -> None:
        """Stops the services of a set that this launcher started, except the first `keep`."""
        ...

    async def release(self) -> None:
        """The run is no longer active: stops what runs for it alone."""
        ...

    async def close(self) -> None:
        """Stops what this launcher started."""
        ...


class LauncherFactory(Protocol):
    """What an entry point of `accord.launchers` stands for, usually the launcher's class."""

    def __call__(self, settings: ControllerSettings) -> Launcher: ...


def check_services(services: Iterable[str]) -> list[str]:
    """The requested services, all of them where none is named. InvalidArgument for an unknown name."""
    names = list(dict.fromkeys(services)) or list(SERVICES)
    for index, name in enumerate(names):
        if name not in SERVICES:
            raise InvalidArgument.at(
                f"services[{index}]", f"unknown service {name!r}; available: {', '.join(SERVICES)}"
            )
    return names
