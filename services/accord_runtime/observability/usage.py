"""The processor time of this process and of all processes that it started."""

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
    """The usage of this process alone."""
    return Usage(_instance(psutil.Process()), time.process_time())


def with_children() -> Usage:
    """The usage of this process and of all processes that it started, including ended ones. Under torchrun: the usage
    of all ranks on this machine, because together they are the service."""
    # Do not check RANK: other launchers set it too, and their other children do not belong to this service.
    first = psutil.Process(os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else os.getpid())
    return Usage(_instance(first), sum(_seconds(process) for process in (first, *first.children(recursive=True))))


def _seconds(process: psutil.Process) -> float:
    """User and system time, including that of children that have ended and were waited for."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0  # the process has just ended, so its parent's time includes it now
    return sum((times.user, times.system, getattr(times, "children_user", 0.0), getattr(times, "children_system", 0.0)))


def _instance(process: psutil.Process) -> str:
    return f"{socket.gethostname()}/{process.pid}/{process.create_time():.0f}"
