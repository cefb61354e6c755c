"""How services on one machine are found: each writes `.accord/<service>.json` when it serves.

The file identifies the process by pid and start time, so that a file left by a killed service, or a pid that now
belongs to another process, is never mistaken for a running service.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from accord import atomic
from accord.errors import DataLoss

SERVICES: Sequence[str] = ("rollout", "reward", "preference", "trainer", "controller")
# The start time is computed from the boot time, which moves when the clock is set.
SAME_START_SECONDS = 2.0


@dataclass(frozen=True)
class ServiceRecord:
    """A running service on this machine. `start_time` of its process: seconds since the epoch; `certificate`: the PEM
    file that a console serves TLS with, empty without TLS."""

    service: str
    address: str
    pid: int
    start_time: float
    token: str = ""
    certificate: str = ""

    @property
    def url(self) -> str:
        """The URL for a browser."""
        return f"{'https' if self.certificate else 'http'}://{self.address}"


def state_dir(given: Path | None) -> Path:
    """The state folder: as given, or $ACCORD_STATE_DIR, or ./.accord. Absolute."""
    return (given or Path(os.environ.get("ACCORD_STATE_DIR") or ".accord")).absolute()


def write(folder: Path, service: str, address: str, *, token: str = "", certificate: str = "") -> Path:
    """Announces this process as `service` at `address`; atomic, readable only by this user."""
    process = psutil.Process()
    record = ServiceRecord(service, address, process.pid, process.create_time(), token, certificate)
    path = _path(folder, service)
    atomic.write_bytes(path, json.dumps(asdict(record)).encode())
    return path


def read(folder: Path, service: str) -> ServiceRecord | None:
    """The running service, or None: there is no file, or its process has ended.

    DataLoss if the file was not written by `write`.
    """
    path = _path(folder, service)
    try:
        record = ServiceRecord(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DataLoss(f"{path} is damaged ({error}). Delete it and restart the service") from error
    return None if running_process(record.pid, record.start_time) is None else record


def remove(folder: Path, service: str) -> None:
    """Removes the announcement of this process, but not that of another one."""
    record = read(folder, service)
    if record is not None and record.pid == os.getpid():
        _path(folder, service).unlink(missing_ok=True)


def addresses(folder: Path | None = None) -> dict[str, str]:
    """The addresses of all running services on this machine, by name."""
    found = {name: read(state_dir(folder), name) for name in SERVICES}
    return {name: record.address for name, record in found.items() if record is not None}


def running_process(pid: int, start_time: float) -> psutil.Process | None:
    """The process with this pid, unless it has ended or its pid now belongs to a different process."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - start_time) < SAME_START_SECONDS
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _path(folder: Path, service: str) -> Path:
    return folder / f"{service}.json"
