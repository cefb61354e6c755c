"""Options that commands share, and the execution of a command until it ends or is interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import typer

T = TypeVar("T")


class Format(StrEnum):
    """The output format of a result."""

    table = "table"
    json = "json"


class AnnotatorKind(StrEnum):
    """Kinds of annotators."""

    human = "human"
    simulated = "simulated"
    model = "model"


@dataclass(frozen=True)
class Options:
    """The global options. state_dir: where services are found and state is kept; debug: show tracebacks."""

    state_dir: Path
    debug: bool


def options(context: typer.Context) -> Options:
    """The global options of this invocation."""
    found = context.find_object(Options)
    if found is None:
        raise RuntimeError("a command ran outside the main callback, which sets the options")
    return found


class Interrupted(Exception):
    """The command was interrupted by Ctrl-C or SIGTERM. Saved work stays saved; `message` explains how to continue."""

    def __init__(self, message: str = "interrupted", exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


# The last one receives a signal. The first is the command itself, which a signal cancels.
_receivers: list[Callable[[int], None]] = []


def _received(number: int) -> None:
    _receivers[-1](number)


@contextlib.contextmanager
def receiving(receiver: Callable[[int], None]) -> Iterator[None]:
    """Within the block, `receiver` is called with the number of each SIGINT, SIGTERM and SIGHUP."""
    _receivers.append(receiver)
    try:
        yield
    finally:
        _receivers.remove(receiver)


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Runs a command's coroutine. Ctrl-C, SIGTERM and a closed terminal cancel it, so that it can clean up."""
    received: list[int] = []

    async def guarded() -> T:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            received.append(number)
            if task is not None:
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, _received, int(number))
        with receiving(stop):
            return await main

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        raise Interrupted(exit_code=128 + (received[0] if received else signal.SIGINT)) from None
