"""Follows a run on the screen until it ends, is paused, or the controller exits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from enum import Enum

from accord.cli.local.session import Session
from accord.cli.options import receiving
from accord.cli.render.output import err, note
from accord.cli.render.progress import Progress, describe, render
from accord.controller import v1 as controller_v1
from accord.errors import Unavailable

ALIVE_SECONDS = 0.5


class Ending(Enum):
    """Why following ended."""

    RUN = "the run ended or was paused"
    INTERRUPTED = "Ctrl-C"
    CONTROLLER_GONE = "the controller exited"


class View:
    """Shows a run's events: live in a terminal, otherwise one line per event."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._live = err().is_terminal

    async def show(self, events: AsyncIterator[controller_v1.RunEvent]) -> None:
        """Shows events until they end."""
        from rich.live import Live

        if not self._live:
            async for event in events:
                self.progress.apply(event)
                note(describe(event) or self.progress.line())
            return
        with Live(render(self.progress), console=err(), refresh_per_second=4, transient=True) as live:
            async for event in events:
                self.progress.apply(event)
                line = describe(event)
                if line is not None:
                    live.console.print(line, markup=False, style="dim")
                live.update(render(self.progress))


@contextmanager
def interrupts() -> Iterator[asyncio.Queue[int]]:
    """Puts Ctrl-C and SIGTERM into a queue instead of ending the command."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    with receiving(queue.put_nowait):
        yield queue


async def follow(session: Session, progress: Progress, stop: asyncio.Queue[int]) -> Ending:
    """Shows the events after `progress.sequence` until the run ends, an interrupt arrives, or the controller exits."""
    view = View(progress)
    watching = asyncio.create_task(
        view.show(session.client.runs.watch(progress.run_id, after_sequence=progress.sequence))
    )
    dying = asyncio.create_task(_gone(session))
    stopping = asyncio.create_task(stop.get())
    tasks = (watching, dying, stopping)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            return Ending.INTERRUPTED
        if watching.done() and (watching.exception() is None or not isinstance(watching.exception(), Unavailable)):
            watching.result()
            return Ending.RUN
        # Allow a moment to notice that the controller has exited, so that the reported reason is the right one.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(dying), 4 * ALIVE_SECONDS)
        if dying.done():
            return Ending.CONTROLLER_GONE
        watching.result()
        return Ending.RUN
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _gone(session: Session) -> None:
    while session.controller.alive():  # noqa: ASYNC110  # another process cannot set our event
        await asyncio.sleep(ALIVE_SECONDS)
