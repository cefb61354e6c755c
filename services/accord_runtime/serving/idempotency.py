"""Once per request_id: a repeated call attaches to the one that runs or gets the result that was kept."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from accord.errors import AlreadyExists

T = TypeVar("T")


class Once:
    """Remembers the last `capacity` results in memory. Failed calls are forgotten, so that a retry tries again.

    Work goes on when the caller that started it goes away: another may be attached to it.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._capacity = capacity
        self._calls: OrderedDict[str, tuple[str, asyncio.Task[Any]]] = OrderedDict()

    async def run(self, request_id: str, request: Message, make: Callable[[], Awaitable[T]]) -> T:
        """The result of `make` for this request_id. AlreadyExists, REQUEST_ID_REUSED, when `request` differs."""
        content = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
        known = self._calls.get(request_id)
        if known and known[0] != content:
            raise AlreadyExists(
                f"request_id {request_id} was used for another request; use a new one", reason="REQUEST_ID_REUSED"
            )
        if known is None:
            task: asyncio.Task[T] = asyncio.ensure_future(_as_coroutine(make))
            self._calls[request_id] = (content, task)
            task.add_done_callback(lambda done: self._settle(request_id, done))
        else:
            task = known[1]
        return await asyncio.shield(task)

    def _settle(self, request_id: str, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._calls.pop(request_id, None)
        finished = [key for key, (_, kept) in self._calls.items() if kept.done()]
        for key in finished[: max(0, len(finished) - self._capacity)]:
            del self._calls[key]


async def _as_coroutine(make: Callable[[], Awaitable[T]]) -> T:
    return await make()
