"""A fair shared/exclusive lock: requests share the engine up to a limit, a weight update holds it exclusively."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SharedLock:
    """First come, first served: a request that arrives after a waiting update waits behind it, so none starves."""

    def __init__(self, shared_limit: int) -> None:
        self._limit = shared_limit
        self._shared = 0
        self._exclusive = False
        self._waiting: deque[tuple[bool, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Holds one of the shared places."""
        await self._enter(exclusive=False)
        try:
            yield
        finally:
            self._leave(exclusive=False)

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Holds the lock exclusively."""
        await self._enter(exclusive=True)
        try:
            yield
        finally:
            self._leave(exclusive=True)

    async def _enter(self, exclusive: bool) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((exclusive, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(exclusive)
            else:
                turn.cancel()
                self._admit()
            raise

    def _leave(self, exclusive: bool) -> None:
        if exclusive:
            self._exclusive = False
        else:
            self._shared -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            exclusive, turn = self._waiting[0]
            if not turn.cancelled():
                room = self._shared == 0 if exclusive else self._shared < self._limit
                if self._exclusive or not room:
                    return
                if exclusive:
                    self._exclusive = True
                else:
                    self._shared += 1
                turn.set_result(None)
            self._waiting.popleft()
