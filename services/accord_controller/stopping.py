"""How a run is stopped between two facts."""

from __future__ import annotations

import asyncio

from accord_controller.reconcile import Wish


class Stopped(Exception):
    """Raised at a durable point of a stage when the run should not go on. Not an error."""


class Switch:
    """What the user wants of a run, asked at every durable point."""

    def __init__(self) -> None:
        self.wish = Wish.RUN
        # Set once the wish is not to run.
        self.stopping = asyncio.Event()

    def turn(self, wish: Wish) -> None:
        """Wishes something; a cancelled run stays cancelled."""
        if self.wish is not Wish.CANCEL:
            self.wish = wish
        if self.wish is not Wish.RUN:
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
        if self.wish is not Wish.RUN:
            raise Stopped(self.wish.value)
