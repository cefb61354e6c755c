"""How services on one machine are found: `.accord/<service>.json`, written by each when it serves.

The file names the process by pid and start time, so that a file left behind by a killed service, or a pid that
meanwhile belongs to another process, is never taken for a running service.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from accord.errors import DataLoss

SERVICES: Sequence[str] = ("rollout", "reward", "preference", "trainer", "controller")


@dataclass(frozen=True)
class ServiceRecord:
    """A service that runs on this machine. `start_time` of its process: seconds since the epoch; `certificate`: the PEM
    file that a console serves TLS with, empty where it does not."""

    service: str
    address: str
    pid: int
    start_time: float
    token: str = ""
    certificate: str = ""

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"{'https' if self.certificate else 'http'}://{self.address}"


def state_dir(given: Path | None) -> Path:
    """The folder of the services' state: as given, else $ACCORD_STATE_DIR, else ./.accord. Absolute."""
    return (given or Path(os.environ.get("ACCORD_STATE_DIR") or ".accord")).absolute()


def write(folder: Path, service: str, address: str, *, token: str = "", certificate: str = "") -> Path:
    """Announces this process as `service` at `address`; atomic, readable by the user alone."""
    process = psutil.Process()
    record = ServiceRecord(service, address, process.pid, process.create_time(), token, certificate)
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, service)
    handle, temporary = tempfile.mkstemp(prefix=f".{service}-", dir=folder)  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(record), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def read(folder: Path, service: str) -> ServiceRecord | None:
    """The running service, or None when there is none: no file, or its process is dead or another.

    DataLoss when the file is not one that `write` made.
    """
    path = _path(folder, service)
    try:
        record = ServiceRecord(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DataLoss(f"{path} is damaged ({error}); delete it and start the service again") from error
    return record if _lives(record) else None


def remove(folder: Path, service: str) -> None:
    """Takes this process's announcement back; leaves another process's alone."""
    record = read(folder, service)
    if record is not None and record.pid == os.getpid():
        _path(folder, service).unlink(missing_ok=True)


def addresses(folder: Path | None = None) -> dict[str, str]:
    """The addresses of all services that run on this machine, by name."""
    found = {name: read(state_dir(folder), name) for name in SERVICES}
    return {name: record.address for name, record in found.items() if record is not None}


def _path(folder: Path, service: str) -> Path:
    return folder / f"{service}.json"


def _lives(record: ServiceRecord) -> bool:
    try:
        process = psutil.Process(record.pid)
        # The start time is computed from the boot time, which moves when the clock is set.
        same = abs(process.create_time() - record.start_time) < 2.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
