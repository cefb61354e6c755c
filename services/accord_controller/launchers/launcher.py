"""The seam: what the controller asks of whatever runs the services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from accord.errors import InvalidArgument
from accord_controller.settings import ControllerSettings

SERVICES = ("rollout", "reward", "preference", "trainer")

# Told (service, sentence) when a service that had been up was found dead and was started again.
OnRestart = Callable[[str, str], Awaitable[None]]
# Told why a service cannot be had yet, and, with nothing to say, that it still waits: raises where it should not.
OnWaiting = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class RolloutSet:
    """Rollout services that draw together: `replicas` of one engine, told the same `options` (JSON).

    `name`: empty for those that all runs share, which are also what `ensure` knows as `rollout`.
    """

    engine: str = ""
    replicas: int = 1
    options: str = ""
    name: str = ""


class Launcher(Protocol):
    """Runs services, or knows where they run."""

    def for_run(self, run_id: str, on_waiting: OnWaiting) -> Launcher:
        """The launcher that a run asks: itself, where runs share their services."""
        ...

    async def ensure(self, services: Iterable[str], on_restart: OnRestart | None = None) -> dict[str, str]:
        """Addresses of healthy services: found, or started, or started again. Unavailable, with the reason and the last
        lines of its log, for one that does not come up."""
        ...

    async def ensure_rollouts(self, wanted: RolloutSet, on_restart: OnRestart | None = None) -> list[str]:
        """Addresses of the healthy ones of a set: found, or started, or started again. Unavailable where none comes up;
        FailedPrecondition, NO_LAUNCHER, for a set that cannot be started from here."""
        ...

    async def end_rollouts(self, ended: RolloutSet, *, keep: int = 0) -> None:
        """Stops those of a set, all but the first `keep`, that this launcher started; others are left alone."""
        ...

    async def release(self) -> None:
        """Its run is not at work any more: what runs for it alone may go."""
        ...

    async def close(self) -> None:
        """Stops what this launcher started."""
        ...


def check_services(services: Iterable[str]) -> list[str]:
    """The services asked for, all where none is named. InvalidArgument for a name that is none."""
    names = list(dict.fromkeys(services)) or list(SERVICES)
    for index, name in enumerate(names):
        if name not in SERVICES:
            raise InvalidArgument.at(f"services[{index}]", f"unknown service {name!r}; there is: {', '.join(SERVICES)}")
    return names


def make_launcher(settings: ControllerSettings) -> Launcher:
    """The launcher that the settings name."""
    if settings.launcher == "local":
        from accord_controller.launchers.local.launcher import LocalLauncher

        return LocalLauncher(settings)
    if settings.launcher == "kubernetes":
        from accord_controller.launchers.kubernetes.launcher import KubernetesLauncher

        return KubernetesLauncher(settings)
    from accord_controller.launchers.static import StaticAddresses

    return StaticAddresses(settings)
