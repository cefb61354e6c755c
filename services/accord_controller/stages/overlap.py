"""Overlaps generation and training: experience for the next steps is generated while a step is taken.

With `max_staleness` S, versions k - 1 - S and later may generate the experience of step k. Generation therefore begins
as soon as version k - 1 - S is active, and new weights are activated during generation: between two tokens if the
engine updates in flight, otherwise between two requests. Nothing here is durable: recorded experience is read back, and
the rest is generated again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

from accord.types import v1 as types_v1
from accord_controller.stages.steps import Batch

# Generates the experience of a step with this version or a later one.
Make = Callable[[int, int], Coroutine[None, None, Batch]]
Activate = Callable[[types_v1.WeightsRef], Awaitable[None]]


class Overlap:
    """The experience of the next steps, and the weights that generate it. Steps count from 1 and versions from 0: step
    k starts from version k - 1 and produces version k."""

    def __init__(
        self,
        max_staleness: int,
        steps: range,
        active: types_v1.WeightsRef,
        make: Make,
        activate: Activate,
    ) -> None:
        """`steps`: the steps to take; `active`: the weights that the engine serves now."""
        self._max_staleness = max_staleness
        self._steps = steps
        self._make = make
        self._activate = activate
        self._begun = steps.start - 1
        self._batches: dict[int, asyncio.Task[Batch]] = {}
        self._updating: asyncio.Task[None] | None = None
        self._latest = self._target = active

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Starts generation. At the end of the block the newest weights are active; after an error, unfinished
        experience is dropped."""
        try:
            self._begin(self._latest.version)
            yield
            await self._settle()
        finally:
            left: list[asyncio.Task[Batch] | asyncio.Task[None]] = [*self._batches.values()]
            if self._updating is not None:
                left.append(self._updating)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def batch(self, step: int) -> Batch:
        """The experience of the next step. Its metric `wait_seconds` is the time that the trainer was idle."""
        began = time.monotonic()
        if step not in self._batches:
            # The trainer is ahead of the engine: the oldest version allowed for this batch is still being activated.
            await self._settle()
        made = await self._batches.pop(step)
        return Batch(made.samples, made.preferences, {**made.metrics, "wait_seconds": time.monotonic() - began})

    async def after(self, weights: types_v1.WeightsRef) -> None:
        """Accepts the new weights of a step; they are activated during the next step. Raises the error of the previous
        activation."""
        self._latest = weights
        if self._updating is None or self._updating.done():
            await self._settle()
            self._updating = asyncio.create_task(self._update())

    def in_use(self) -> list[types_v1.WeightsRef]:
        """The weights that the engine fetches now or next."""
        return [self._target, self._latest]

    async def _settle(self) -> None:
        if self._updating is not None:
            await self._updating

    async def _update(self) -> None:
        """Activates the newest weights, until there are no newer ones."""
        while self._target.version != self._latest.version:
            self._target = self._latest
            await self._activate(self._target)
            self._begin(self._target.version)

    def _begin(self, version: int) -> None:
        """Starts generating all experience that is allowed now that `version` is active."""
        until = min(self._steps.stop - 1, version + 1 + self._max_staleness)
        for step in range(self._begun + 1, until + 1):
            least = max(0, step - 1 - self._max_staleness)
            self._batches[step] = asyncio.create_task(self._make(step, least))
        self._begun = max(self._begun, until)
