"""How a run is stopped between two facts."""

from __future__ import annotations

import asyncio

from accord_controller.runs.reconcile import DesiredState


class Stopped(Exception):
    """Raised at a durable point of a stage when the run should not go on. Not an error."""


class StopSignal:
    """What the user wants of a run, asked at every durable point."""

    def __init__(self) -> None:
        self.desired = DesiredState.RUN
        # Set once the wish is not to run.
        self.stopping = asyncio.Event()

    def turn(self, desired: DesiredState) -> None:
        """Wishes something; a cancelled run stays cancelled."""
        if self.desired is not DesiredState.CANCEL:
            self.desired = desired
        if self.desired is not DesiredState.RUN:
            self.stopping.set()

    async def wait(self, seconds: float) -> None:
        """Waits so long, or until the run should stop."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return

    def check(self) -> None:
        """Returns when the run should go on, raises Stopped when not."""
        if self.desired is not DesiredState.RUN:
            raise Stopped(self.desired.value)
