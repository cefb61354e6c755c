"""The seam: what a launcher does for the controller.

A launcher plugs in by an entry point of the group `accord.launchers`: a callable that takes the controller's settings.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from accord.errors import InvalidArgument
from accord_controller.settings import ControllerSettings

SERVICES = ("rollout", "reward", "preference", "trainer")

# Called with (service, message) after a previously healthy service was found dead and restarted.
OnRestart = Callable[[str, str], Awaitable[None]]
# Called with the reason that a service is not available yet, then with "" while the wait continues. It raises to end
# the wait.
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
    """Runs services or finds where they run."""

    # Whether it can start the engine of a swap.
    starts_services: bool
    # Whether the services that it starts have the plugins installed here, so that the names in a spec can be checked.
    shares_plugins: bool

    def for_run(self, run_id: str, on_waiting: OnWaiting) -> Launcher:
        """The launcher of one run; returns itself if runs share their services."""
        ...

    async def ensure(self, services: Iterable[str], on_restart: OnRestart | None = None) -> dict[str, str]:
        """The addresses of healthy services, which are found, started or restarted. If one does not come up:
        Unavailable, with the cause and the end of its log."""
        ...

    async def ensure_rollouts(self, wanted: RolloutSet, on_restart: OnRestart | None = None) -> list[str]:
        """The addresses of the healthy services of a set, which are found, started or restarted. Unavailable if none
        comes up; FailedPrecondition, NO_LAUNCHER, if this launcher cannot start the set."""
        ...

    async def end_rollouts(self, ended: RolloutSet, *, keep: int = 0) -> None:
        """Stops the services of a set that this launcher started, except the first `keep`."""
        ...

    async def release(self) -> None:
        """Stops the services that run for this run alone; called when the run is no longer active."""
        ...

    async def close(self) -> None:
        """Stops the services that this launcher started."""
        ...


class LauncherFactory(Protocol):
    """The object that an entry point of `accord.launchers` names, usually the launcher's class."""

    def __call__(self, settings: ControllerSettings) -> Launcher: ...


def check_services(services: Iterable[str]) -> list[str]:
    """The requested services; all of them if none is named. InvalidArgument for an unknown name."""
    names = list(dict.fromkeys(services)) or list(SERVICES)
    for index, name in enumerate(names):
        if name not in SERVICES:
            raise InvalidArgument.at(
                f"services[{index}]", f"unknown service {name!r}; available: {', '.join(SERVICES)}"
            )
    return names
