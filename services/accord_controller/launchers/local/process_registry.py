"""The processes that controllers of this state folder started: a controller stops only those."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import psutil

from accord import atomic, discovery
from accord_controller.launchers.local.process import ServiceProcess


class ProcessRegistry:
    """A JSON file: service -> pid and start time of its process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, service: str, pid: int) -> None:
        """Records that this process was started for `service`."""
        try:
            started = psutil.Process(pid).create_time()
        except psutil.NoSuchProcess:
            return
        entries = self._read()
        entries[service] = (pid, started)
        self._write(entries)

    def processes(self) -> dict[str, psutil.Process]:
        """The recorded processes that are still running, by service."""
        found = {}
        for service, (pid, started) in self._read().items():
            if (process := discovery.running_process(pid, started)) is not None:
                found[service] = process
        return found

    async def stop_all(self, own: Mapping[str, ServiceProcess], seconds: float) -> None:
        """Stops all of them. `own`: children of this process, which must be reaped."""
        await self.stop({*self._read(), *own}, own, seconds)

    async def stop(self, names: Collection[str], own: Mapping[str, ServiceProcess], seconds: float) -> None:
        """SIGTERM to the named processes, SIGKILL to those that are still running after `seconds`."""
        own = {name: child for name, child in own.items() if name in names}
        processes = [process for name, process in self.processes().items() if name in names]
        for process in processes:
            _quietly(process.terminate)
        deadline = time.monotonic() + seconds
        while any(_is_running(process) for process in processes):
            for child in own.values():
                child.exit_code()  # reaps it
            if time.monotonic() > deadline:
                for process in processes:
                    _quietly(process.kill)
                deadline = float("inf")
            await asyncio.sleep(0.05)
        for child in own.values():
            await child.stop(1.0)
        self._write({name: entry for name, entry in self._read().items() if name not in names})

    def _read(self) -> dict[str, tuple[int, float]]:
        try:
            return {service: (int(pid), float(at)) for service, (pid, at) in json.loads(self._path.read_text()).items()}
        except FileNotFoundError:
            return {}

    def _write(self, entries: Mapping[str, tuple[int, float]]) -> None:
        atomic.write_bytes(self._path, json.dumps(entries).encode())


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _quietly(action: Callable[[], None]) -> None:
    """Signals a process that may have ended in the meantime."""
    try:
        action()
    except psutil.NoSuchProcess:
        return
