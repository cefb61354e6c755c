"""The signal that stops a run between two recorded facts."""

from __future__ import annotations

import asyncio

from accord_controller.runs.reconcile import DesiredState


class Stopped(Exception):
    """Raised at a durable point of a stage when the run should stop. Not an error."""


class StopSignal:
    """The state that the user wants for a run; stages check it at every durable point."""

    def __init__(self) -> None:
        self.desired = DesiredState.RUN
        # Set once the run should stop.
        self.stopping = asyncio.Event()

    def set(self, desired: DesiredState) -> None:
        """Changes the wanted state; a cancelled run stays cancelled."""
        if self.desired is not DesiredState.CANCEL:
            self.desired = desired
        if self.desired is not DesiredState.RUN:
            self.stopping.set()

    async def wait(self, seconds: float) -> None:
        """Waits for this long or until the run should stop."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return

    def check(self) -> None:
        """Raises Stopped when the run should stop."""
        if self.desired is not DesiredState.RUN:
            raise Stopped(self.desired.value)
