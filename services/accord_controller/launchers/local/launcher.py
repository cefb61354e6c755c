"""The launcher for one machine: each service is a separate process with its own log file.

Running services are found through their discovery files and adopted, even if another program started them. Dead ones
are restarted a bounded number of times. A service survives the death of its controller (SIGKILL); the next controller
adopts it. On exit, a controller stops only the services that it or a predecessor started: `launched.json` lists those
processes.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterable
from pathlib import Path

import accord
from accord import atomic, discovery
from accord.errors import Unavailable
from accord_controller.launchers import health
from accord_controller.launchers.launcher import OnRestart, OnWaiting, RolloutSet, check_services
from accord_controller.launchers.local.process import Instance, ServiceProcess, instance_of, start_process
from accord_controller.launchers.local.process_registry import ProcessRegistry
from accord_controller.settings import ControllerSettings

log = logging.getLogger(__name__)

MOST_RESTARTS = 5
WINDOW_SECONDS = 600.0
FIRST_DELAY_SECONDS = 0.2
STOP_SECONDS = 25.0
# How long a service that does not serve yet may take to exit.
STARTING_SECONDS = 5.0


class LocalLauncher:
    """Starts `python -m accord_<service>` unless the settings give that service's address."""

    starts_services = True
    shares_plugins = True

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings
        self._state_dir: Path = settings.state_dir.absolute()
        self._registry = ProcessRegistry(self._state_dir / "launched.json")
        self._processes: dict[str, ServiceProcess] = {}
        # When each service was restarted, monotonic seconds.
        self._restarts: dict[str, list[float]] = {}
        self._seen: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}

    def for_run(self, run_id: str, on_waiting: OnWaiting) -> LocalLauncher:
        """Itself: runs share their services."""
        return self

    async def ensure(self, services: Iterable[str], on_restart: OnRestart | None = None) -> dict[str, str]:
        """Starts all services at once. Unavailable: SERVICE_DOWN, SERVICE_FAILED, SERVICE_KEEPS_DYING."""
        names = check_services(services)
        addresses = await asyncio.gather(*(self._ensure_shared(name, on_restart) for name in names))
        return dict(zip(names, addresses, strict=True))

    async def ensure_rollouts(self, wanted: RolloutSet, on_restart: OnRestart | None = None) -> list[str]:
        """Starts all replicas at once; returns the addresses of those that come up."""
        if not wanted.name and self._settings.rollout_addresses:
            return await health.healthy_addresses(self._settings.rollout_addresses, self._settings.start_seconds)
        return await health.addresses_up(self._ensure(instance, on_restart) for instance in self._instances(wanted))

    async def end_rollouts(self, ended: RolloutSet, *, keep: int = 0) -> None:
        """Stops the replicas that a controller of this state folder started."""
        names = {instance.name for instance in self._instances(ended)[keep:]}
        await self._registry.stop(names, self._processes, STOP_SECONDS)
        for name in names:
            self._processes.pop(name, None)
            self._seen.discard(name)

    async def release(self) -> None:
        """Nothing to do: no service belongs to a single run."""

    async def close(self) -> None:
        """Stops every service that a controller of this state folder started: SIGTERM, then SIGKILL."""
        await self._registry.stop_all(self._processes, STOP_SECONDS)
        self._processes.clear()

    def _instances(self, wanted: RolloutSet) -> list[Instance]:
        """The processes of a set. The first one with the engine of the settings is the service that all runs share."""
        engine = wanted.engine or self._settings.engine
        base = wanted.name
        if not base and engine == self._settings.engine and not wanted.options:
            base = "rollout"
        elif not base:
            digest = f"-{hashlib.sha256(wanted.options.encode()).hexdigest()[:8]}" if wanted.options else ""
            base = f"rollout-{engine}{digest}"
        names = [base, *(f"{base}-{number}" for number in range(2, wanted.replicas + 1))]
        return [
            Instance(
                "rollout",
                name,
                self._state_dir if name == "rollout" else self._state_dir / "rollouts" / name,
                engine,
                wanted.options,
            )
            for name in names
        ]

    async def _ensure_shared(self, name: str, on_restart: OnRestart | None) -> str:
        given = self._settings.address(name)
        if given:
            await health.wait_healthy(name, given, self._settings.start_seconds)
            return given
        return await self._ensure(instance_of(name, self._settings), on_restart)

    async def _ensure(self, instance: Instance, on_restart: OnRestart | None) -> str:
        name = instance.name
        async with self._locks.setdefault(name, asyncio.Lock()):
            address = await self._running(instance)
            if address:
                self._seen.add(name)
                return address
            restarted = name in self._seen
            if restarted:
                await self._back_off(name)
            address = await self._start(instance)
            self._seen.add(name)
        if restarted and on_restart is not None:
            await on_restart(name, f"the {name} service died and was restarted at {address}")
        return address

    async def _running(self, instance: Instance) -> str:
        """The address of a running service once it is healthy; empty if none is running."""
        name = instance.name
        own = self._processes.get(name)
        if own is not None and own.exit_code() is not None:
            log.warning("the %s service (pid %s) exited with code %s", name, own.pid, own.exit_code())
            del self._processes[name]
        record = discovery.read(instance.state_dir, instance.service)
        if record is None:
            return ""
        deadline = time.monotonic() + self._seconds(instance)
        while not await health.is_healthy(record.address):
            if discovery.read(instance.state_dir, instance.service) is None or (
                own is not None and own.exit_code() is not None
            ):
                return ""
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the {name} service (pid {record.pid}, {record.address}) is running but did not answer within "
                    f"{self._seconds(instance):g} s. See {self._log(name)}, and stop the process if it hangs",
                    reason="SERVICE_DOWN",
                    metadata={"service": name, "pid": str(record.pid)},
                )
            await asyncio.sleep(health.POLL_SECONDS)
        return record.address

    async def _start(self, instance: Instance) -> str:
        """Starts a service and waits until it is healthy."""
        name = instance.name
        remaining = self._processes.get(name)
        if remaining is not None:  # torchrun, whose serving rank has died
            await remaining.stop(STOP_SECONDS)
        # A killed controller may have begun to start this service. Two must not share one state folder.
        await self._registry.stop({name}, {}, STARTING_SECONDS)
        dtype_file = self._dtype_file(instance)
        dtype = dtype_file.read_text() if dtype_file is not None and dtype_file.exists() else ""
        process = await asyncio.to_thread(start_process, instance, self._settings, self._log(name), dtype=dtype)
        self._processes[name] = process
        self._registry.add(name, process.pid)
        deadline = time.monotonic() + self._seconds(instance)
        while True:
            code = process.exit_code()
            if code is not None:
                del self._processes[name]
                raise self._failed(name, f"exited with code {code} while it started", process)
            record = discovery.read(instance.state_dir, instance.service)
            if record is not None and process.serves_as(record.pid) and await health.is_healthy(record.address):
                log.info("started the %s service at %s (pid %s)", name, record.address, process.pid)
                if dtype_file is not None and not dtype_file.exists():
                    await self._remember_dtype(record.address, dtype_file)
                return record.address
            if time.monotonic() > deadline:
                await process.stop(1.0)
                del self._processes[name]
                raise self._failed(name, f"was not healthy within {self._seconds(instance):g} s", process)
            await asyncio.sleep(health.POLL_SECONDS)

    def _seconds(self, instance: Instance) -> float:
        """How long the service may take to come up. An engine of a swap gets longer, because the run continues in the
        meantime."""
        if instance.state_dir == self._state_dir:
            return self._settings.start_seconds
        return max(self._settings.start_seconds, self._settings.swap_seconds)

    def _dtype_file(self, instance: Instance) -> Path | None:
        return self._state_dir / f"engine-{instance.engine}.dtype" if instance.service == "rollout" else None

    async def _remember_dtype(self, address: str, dtype_file: Path) -> None:
        """Keeps the number type that the engine measured as fastest. A restarted engine is given it, so that it
        computes the same way."""
        async with accord.Client(rollout=address) as client:
            found = (await client.rollout.status()).compute_dtype
        atomic.write_bytes(dtype_file, found.encode())

    async def _back_off(self, name: str) -> None:
        """Waits longer before each further restart. Unavailable after too many restarts."""
        now = time.monotonic()
        recent = [moment for moment in self._restarts.get(name, []) if now - moment < WINDOW_SECONDS]
        if len(recent) >= MOST_RESTARTS:
            raise Unavailable(
                f"the {name} service keeps dying: it was restarted {len(recent)} times within {WINDOW_SECONDS / 60:g} "
                f"minutes. {self._log(name)} ends with:\n{_tail(self._log(name))}",
                reason="SERVICE_KEEPS_DYING",
                metadata={"service": name},
            )
        self._restarts[name] = [*recent, now]
        await asyncio.sleep(FIRST_DELAY_SECONDS * 2 ** len(recent))

    def _failed(self, name: str, what: str, process: ServiceProcess) -> Unavailable:
        return Unavailable(
            f"the {name} service {what}. {process.log} ends with:\n{_tail(process.log, process.log_start)}",
            reason="SERVICE_FAILED",
            metadata={"service": name},
        )

    def _log(self, name: str) -> Path:
        return self._state_dir / "logs" / f"{name}.log"


def _tail(path: Path, start: int = 0, lines: int = 12, most_bytes: int = 8192) -> str:
    """The last lines of a log, from byte `start` on."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(start, size - most_bytes))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return "(empty)"
    return "\n".join(text.splitlines()[-lines:]) or "(empty)"
