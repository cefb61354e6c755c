"""Starts, observes and stops one service process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from accord_controller.settings import ControllerSettings

# Threads that spin while they wait are ten times slower when several services share the cores.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "TOKENIZERS_PARALLELISM": "false"}
# The module behind the `torchrun` command, run with this Python.
TORCHRUN = ("-m", "torch.distributed.run", "--standalone")


@dataclass(frozen=True)
class ServiceProcess:
    """A child process. `log_start`: the byte of the log file where its lines begin."""

    popen: subprocess.Popen[bytes]
    log: Path
    log_start: int

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    def serves_as(self, pid: int) -> bool:
        """Whether `pid` is this process or its child: under torchrun the first rank serves, not torchrun itself."""
        try:
            return pid == self.pid or psutil.Process(pid).ppid() == self.pid
        except psutil.NoSuchProcess:
            return False

    def exit_code(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self.popen.poll()

    async def stop(self, seconds: float) -> None:
        """SIGTERM, then SIGKILL if it is still running after `seconds`."""
        if self.exit_code() is None:
            self.popen.terminate()
        deadline = time.monotonic() + seconds
        while self.exit_code() is None:
            if time.monotonic() > deadline:
                self.popen.kill()
            await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Instance:
    """A service to start: the name of its log and of its entry in `launched.json`, its state folder and, for a rollout
    service, its engine and the engine's options (JSON)."""

    service: str
    name: str
    state_dir: Path
    engine: str = ""
    options: str = ""


def instance_of(service: str, settings: ControllerSettings) -> Instance:
    """The instance that all runs on this state folder share."""
    return Instance(service, service, settings.state_dir.absolute(), settings.engine if service == "rollout" else "")


def start_process(
    service: str | Instance, settings: ControllerSettings, log: Path, *, dtype: str = ""
) -> ServiceProcess:
    """Starts `python -m accord_<service>` in a new session: Ctrl-C in the terminal reaches only the controller, which
    then stops its services in order."""
    instance = instance_of(service, settings) if isinstance(service, str) else service
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        start = out.seek(0, 2)
        popen = subprocess.Popen(
            command(instance, settings, dtype),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(settings.threads(instance.service), os.environ),
            start_new_session=True,
        )
    return ServiceProcess(popen, log, start)


def command(service: str | Instance, settings: ControllerSettings, dtype: str = "") -> list[str]:
    """The command line of a service. `dtype`: the number type that this engine used when it last ran here."""
    instance = instance_of(service, settings) if isinstance(service, str) else service
    options = ["--state-dir", str(instance.state_dir), "--port", "0", "--log-level", settings.log_level]
    if instance.service == "rollout":
        options += ["--engine", instance.engine, *(["--dtype", dtype] if dtype else [])]
        options += ["--engine-options", instance.options] if instance.options else []
    module = ["-m", f"accord_{instance.service}", *options]
    if instance.service == "trainer" and settings.trainer_ranks > 1:
        # torchrun must not restart ranks: the launcher restarts a dead trainer and counts the restarts.
        module = [*TORCHRUN, f"--nproc-per-node={settings.trainer_ranks}", "--max-restarts=0", *module]
    python = settings.python(instance.engine) if instance.service == "rollout" else sys.executable
    return [str(python), *module]


def environment(threads: int, outer: Mapping[str, str]) -> dict[str, str]:
    """The environment of a service that computes with `threads` threads; 0 keeps the setting of `outer`, by default all
    cores."""
    inner = {**outer, **ENVIRONMENT}
    if threads:
        inner["OMP_NUM_THREADS"] = str(threads)
    return inner
