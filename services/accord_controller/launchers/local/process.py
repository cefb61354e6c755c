"""One service process: how it is started, watched and stopped."""

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

# Threads that spin while they wait cost tenfold when several services share the cores.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "TOKENIZERS_PARALLELISM": "false"}
# The module behind the command `torchrun`, of this very Python.
TORCHRUN = ("-m", "torch.distributed.run", "--standalone")


@dataclass(frozen=True)
class ServiceProcess:
    """A child process. `log_start`: where in the log file its own lines begin, bytes."""

    popen: subprocess.Popen[bytes]
    log: Path
    log_start: int

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    def serves_as(self, pid: int) -> bool:
        """Whether `pid` is this process or was started by it (torchrun's first rank serves, not torchrun)."""
        try:
            return pid == self.pid or psutil.Process(pid).ppid() == self.pid
        except psutil.NoSuchProcess:
            return False

    def exit_code(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self.popen.poll()

    async def stop(self, seconds: float) -> None:
        """SIGTERM, then SIGKILL when it has not ended after `seconds`."""
        if self.exit_code() is None:
            self.popen.terminate()
        deadline = time.monotonic() + seconds
        while self.exit_code() is None:
            if time.monotonic() > deadline:
                self.popen.kill()
            await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Instance:
    """What is to be started: a service, under a name that its log and `launched.json` have it by, and its own state
    folder; a rollout service also with its engine and what that is told (JSON)."""

    service: str
    name: str
    state_dir: Path
    engine: str = ""
    options: str = ""


def instance_of(service: str, settings: ControllerSettings) -> Instance:
    """The one that everybody on this state folder shares."""
    return Instance(service, service, settings.state_dir.absolute(), settings.engine if service == "rollout" else "")


def start_process(what: str | Instance, settings: ControllerSettings, log: Path, *, dtype: str = "") -> ServiceProcess:
    """Starts `python -m accord_<service>` in a session of its own: Ctrl-C in the terminal reaches the controller alone,
    which then stops its services in order."""
    instance = instance_of(what, settings) if isinstance(what, str) else what
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


def command(what: str | Instance, settings: ControllerSettings, dtype: str = "") -> list[str]:
    """The command line of a service. `dtype`: what an engine that ran here before computed in."""
    instance = instance_of(what, settings) if isinstance(what, str) else what
    options = ["--state-dir", str(instance.state_dir), "--port", "0", "--log-level", settings.log_level]
    if instance.service == "rollout":
        options += ["--engine", instance.engine, *(["--dtype", dtype] if dtype else [])]
        options += ["--engine-options", instance.options] if instance.options else []
    module = ["-m", f"accord_{instance.service}", *options]
    if instance.service == "trainer" and settings.trainer_ranks > 1:
        # No restarts of its own: a dead trainer is for the launcher to start again, which counts how often.
        module = [*TORCHRUN, f"--nproc-per-node={settings.trainer_ranks}", "--max-restarts=0", *module]
    python = settings.python(instance.engine) if instance.service == "rollout" else sys.executable
    return [str(python), *module]


def environment(threads: int, outer: Mapping[str, str]) -> dict[str, str]:
    """The environment of a service that computes with `threads` threads; 0: all cores, unless told by the outer one."""
    inner = {**outer, **ENVIRONMENT}
    if threads:
        inner["OMP_NUM_THREADS"] = str(threads)
    return inner
