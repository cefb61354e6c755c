"""Async objects used from plain threads: an event loop in a separate thread, and a proxy that waits for it."""

from __future__ import annotations

import asyncio
import inspect
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, TypeVar

from accord.errors import FailedPrecondition

T = TypeVar("T")
_END = object()


class LoopThread:
    """An event loop in a daemon thread, until `stop`. Any thread may wait for its coroutines, also one with a running
    loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="accord-sync", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Waits for a coroutine; an interrupt of the waiting thread (Ctrl-C) cancels it."""
        if self._loop.is_closed():
            coroutine.close()
            raise FailedPrecondition("This client is closed; create a new one", reason="CLIENT_CLOSED")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # no effect if it has ended

    def iterate(self, stream: AsyncIterator[T]) -> Iterator[T]:
        """Yields from an async stream, and closes it if the reader stops early."""

        async def step() -> Any:
            return await anext(stream, _END)

        try:
            while (item := self.run(step())) is not _END:
                yield item
        finally:
            self._close(stream)

    def _close(self, stream: AsyncIterator[Any]) -> None:
        aclose: Callable[[], Coroutine[Any, Any, None]] | None = getattr(stream, "aclose", None)
        if aclose is None or self._loop.is_closed():
            return
        if threading.current_thread() is self._thread:  # garbage-collected there: a wait would never end
            self._loop.create_task(aclose())
        else:
            self.run(aclose())

    def stop(self) -> None:
        """Stops the loop and the thread; cancels running coroutines. A second call does nothing."""
        if self._loop.is_closed():
            return
        self.run(_cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Blocking:
    """A proxy whose coroutine methods wait and whose async iterators are iterators; other attributes are unchanged."""

    def __init__(self, target: Any, thread: LoopThread) -> None:
        self._target = target
        self._thread = thread

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._target, name)
        if inspect.iscoroutinefunction(member):
            return _waiting(member, self._thread)
        if inspect.isasyncgenfunction(member):
            return _iterating(member, self._thread)
        return member

    def __dir__(self) -> list[str]:
        return dir(self._target)


def _waiting(method: Callable[..., Coroutine[Any, Any, Any]], thread: LoopThread) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return thread.run(method(*args, **kwargs))

    return call


def _iterating(method: Callable[..., AsyncIterator[Any]], thread: LoopThread) -> Callable[..., Iterator[Any]]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
        return thread.iterate(method(*args, **kwargs))

    return call


def stop_when_collected(
    owner: object, close: Callable[[], Awaitable[None]], thread: LoopThread
) -> weakref.finalize[Any, Any]:
    """Closes and stops when `owner` is garbage-collected or the interpreter exits; call the result to do it now,
    once."""

    def end() -> None:
        async def closing() -> None:
            await close()

        thread.run(closing())
        thread.stop()

    return weakref.finalize(owner, end)


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
