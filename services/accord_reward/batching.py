"""Joins concurrent calls to one scorer into batches, and limits the number of waiting items."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from accord.errors import InvalidArgument, ResourceExhausted, Unavailable
from accord_reward.guarded import score_checked
from accord_reward.scorer import Item, Outcome, Scorer

log = logging.getLogger(__name__)


class Admission:
    """Counts the items that wait or are being scored in the whole service, and refuses more than `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items = 0

    @contextmanager
    def admit(self, count: int) -> Iterator[None]:
        """Reserves places for `count` items during the block. ResourceExhausted/OVERLOADED: retry later;
        InvalidArgument: more items than the limit."""
        if count > self._limit:
            raise InvalidArgument.at("items", f"has {count} items; send at most {self._limit} per request")
        if self._items + count > self._limit:
            raise ResourceExhausted(
                f"{self._items} of at most {self._limit} items are waiting or being scored; try again in a moment",
                reason="OVERLOADED",
                metadata={"queued_items": str(self._items), "max_queued_items": str(self._limit)},
            )
        self._items += count
        try:
            yield
        finally:
            self._items -= count


@dataclass(frozen=True)
class BatchLimits:
    """`window_seconds`: how long the first call waits for others; `max_items`: the maximum items of joined calls."""

    window_seconds: float
    max_items: int


@dataclass(frozen=True)
class _Call:
    items: tuple[Item, ...]
    isolated: bool
    outcomes: asyncio.Future[list[Outcome]]
    arrived: float


class Batcher:
    """One scorer and its queue. Batches run one at a time, first come, first served; a call is never split.

    The calls that arrive while a batch runs form the next batch, so the window only affects the first call after a
    pause. An isolated call gets a separate batch that depends on no other call, so repeats are bit-equal.
    """

    def __init__(self, name: str, scorer: Scorer, limits: BatchLimits) -> None:
        self.name = name
        self._scorer = scorer
        self._limits = limits
        self._waiting: deque[_Call] = deque()
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def idle(self) -> bool:
        """Whether no call waits or runs."""
        return self._worker is None

    async def score(self, items: Sequence[Item], isolated: bool = False) -> list[Outcome]:
        """One outcome per item, in order. A call that is cancelled while it waits is not scored."""
        if self._closed:
            raise Unavailable(f"scorer {self.name} is closing; try again", reason="CLOSING")
        loop = asyncio.get_running_loop()
        call = _Call(tuple(items), isolated, loop.create_future(), loop.time())
        self._waiting.append(call)
        self._arrived.set()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await call.outcomes

    async def close(self) -> None:
        """Ends the running batch and refuses the waiting calls."""
        self._closed = True
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        self._refuse(self._waiting)
        self._waiting.clear()

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._wait_for_more(self._waiting[0])
                if batch := self._take():
                    await self._score(batch)
        finally:
            self._worker = None

    async def _wait_for_more(self, first: _Call) -> None:
        loop = asyncio.get_running_loop()
        until = first.arrived + self._limits.window_seconds
        while not first.isolated and sum(len(call.items) for call in self._waiting) < self._limits.max_items:
            self._arrived.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._arrived.wait()
            except TimeoutError:
                return
            if loop.time() >= until:
                return

    def _take(self) -> list[_Call]:
        batch: list[_Call] = []
        items = 0
        while self._waiting:
            call = self._waiting[0]
            joins = not batch or not (
                call.isolated or batch[0].isolated or items + len(call.items) > self._limits.max_items
            )
            if call.outcomes.done():  # the caller has cancelled
                self._waiting.popleft()
            elif joins:
                batch.append(self._waiting.popleft())
                items += len(call.items)
            else:
                break
        return batch

    async def _score(self, batch: Sequence[_Call]) -> None:
        items = [item for call in batch for item in call.items]
        started = time.perf_counter()
        try:
            outcomes = iter(await score_checked(self.name, self._scorer, items))
        except asyncio.CancelledError:
            self._refuse(batch)
            raise
        for call in batch:
            mine = [next(outcomes) for _ in call.items]
            if not call.outcomes.done():
                call.outcomes.set_result(mine)
        log.debug(
            "scorer %s: batch of %d calls, %d items, isolated %s, %.1f ms",
            self.name,
            len(batch),
            len(items),
            batch[0].isolated,
            (time.perf_counter() - started) * 1000,
            extra={"scorer": self.name, "batch_calls": len(batch), "batch_items": len(items)},
        )

    def _refuse(self, calls: Sequence[_Call] | deque[_Call]) -> None:
        for call in calls:
            if not call.outcomes.done():
                call.outcomes.set_exception(
                    Unavailable(f"scorer {self.name} was closed before it finished; try again", reason="CLOSING")
                )
