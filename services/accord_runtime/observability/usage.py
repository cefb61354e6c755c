"""The processor time of this process and of every process that it started."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Usage:
    """`instance` identifies a process across machines; `cpu_seconds`: user and system time."""

    instance: str
    cpu_seconds: float


def own() -> Usage:
    """Of this process alone."""
    return Usage(_instance(psutil.Process()), time.process_time())


def with_children() -> Usage:
    """Of this process and all that it started, including those that have ended. Under torchrun: of all ranks on this
    machine, since they are the service and torchrun started them."""
    # Not by RANK: other launchers set it too, and their other children are not ours.
    first = psutil.Process(os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else os.getpid())
    return Usage(_instance(first), sum(_seconds(process) for process in (first, *first.children(recursive=True))))


def _seconds(process: psutil.Process) -> float:
    """User and system time, including that of children that have ended and were waited for."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0  # it has just ended: from now on its parent's time includes it
    return sum((times.user, times.system, getattr(times, "children_user", 0.0), getattr(times, "children_system", 0.0)))


def _instance(process: psutil.Process) -> str:
    return f"{socket.gethostname()}/{process.pid}/{process.create_time():.0f}"
