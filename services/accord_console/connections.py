"""Addresses of the services: from the settings, or from the state folder at each use, to follow restarts."""

from __future__ import annotations

import asyncio

import accord
from accord import discovery
from accord.errors import FailedPrecondition
from accord_console.settings import ConsoleSettings

NAMES = ("preference", "controller", "rollout")


class Connections:
    """Clients of the services. A client is reused while the addresses stay the same."""

    def __init__(self, settings: ConsoleSettings) -> None:
        self._settings = settings
        self._folder = settings.state_dir.absolute()
        self._given = {name: address for name in NAMES if (address := str(getattr(settings, f"{name}_address")))}
        self._client: accord.Client | None = None
        self._old: list[accord.Client] = []
        self._lock = asyncio.Lock()

    def addresses(self) -> dict[str, str]:
        """The addresses of the known services, by name."""
        found = {name: discovery.read(self._folder, name) for name in NAMES if name not in self._given}
        return self._given | {name: record.address for name, record in found.items() if record is not None}

    async def client(self, *needed: str) -> accord.Client:
        """A client of the needed services. The controller starts those that are down if it launches services.

        FailedPrecondition, SERVICE_UNKNOWN, if one cannot be found.
        """
        async with self._lock:
            addresses = self.addresses()
            missing = [name for name in needed if name not in addresses]
            if missing and "controller" in addresses and "controller" not in missing:
                async with accord.Client(controller=addresses["controller"]) as controller:
                    addresses |= await controller.runs.ensure_services(missing)
                missing = [name for name in needed if name not in addresses]
            if missing:
                raise FailedPrecondition(
                    f"No {missing[0]} service is running for {self._folder}. Start all services with `accord up`, "
                    f"or set --{missing[0]}-address",
                    reason="SERVICE_UNKNOWN",
                )
            return self._of({name: addresses[name] for name in NAMES if name in addresses})

    def _of(self, addresses: dict[str, str]) -> accord.Client:
        if self._client is None or self._client.addresses != addresses:
            if self._client is not None:
                self._old.append(self._client)  # calls in flight may finish
            self._client = accord.Client(
                preference=addresses.get("preference"),
                controller=addresses.get("controller"),
                rollout=addresses.get("rollout"),
            )
        return self._client

    async def close(self) -> None:
        """Closes the connections."""
        for client in (*self._old, *([self._client] if self._client else [])):
            await client.close()
