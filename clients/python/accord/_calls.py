"""Makes all SDK calls: one place for deadlines, retries and request ids.

A call that is safe to repeat (it reads, has a request_id, or is identified by its content) is retried while the service
is UNAVAILABLE: the same request, with jittered exponential backoff, within the same deadline. Other errors are raised
at once.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from accord.errors import DeadlineExceeded, Unavailable

T = TypeVar("T")
M = TypeVar("M", bound=Message)

# Default deadlines, seconds. Each is far above the normal duration of the call.
QUICK = 30.0
SCORE = 600.0
STREAM = 1800.0
WEIGHTS = 1800.0
GENERATE = 3600.0
STEP = 3600.0


@dataclass(frozen=True)
class RetryPolicy:
    """How many times a call is tried while its service is UNAVAILABLE, and the pauses between tries.

    The pause after failed try k, counted from 0, is between half and all of min(longest, first * 2^k) seconds. The
    defaults tolerate 3 to 6 seconds without the service.
    """

    attempts: int = 6
    first: float = 0.2
    longest: float = 3.0

    def pause(self, attempt: int) -> float:
        """Seconds to wait after failed attempt number `attempt`, counted from 0."""
        return random.uniform(0.5, 1.0) * min(self.longest, self.first * 2.0**attempt)


def new_request_id(given: str | None = None) -> str:
    """The given request id, or a new one."""
    return given or uuid.uuid4().hex


class Attempts:
    """The tries of one call: the remaining time, and whether to try again after an error."""

    def __init__(self, policy: RetryPolicy, timeout: float | None) -> None:
        self._policy = policy
        self._end = None if timeout is None else time.monotonic() + timeout
        self._failed = 0

    def left(self, at_most: float = GENERATE) -> float:
        """Seconds for the next try."""
        return at_most if self._end is None else min(at_most, max(0.001, self._end - time.monotonic()))

    def succeeded(self) -> None:
        """Records progress, which resets the count."""
        self._failed = 0

    async def after(self, error: Unavailable) -> None:
        """Waits for the next try; raises `error` if no tries are left."""
        pause = self._policy.pause(self._failed)
        self._failed += 1
        if self._failed >= self._policy.attempts or (self._end is not None and time.monotonic() + pause >= self._end):
            raise error
        await asyncio.sleep(pause)

    def expired(self) -> bool:
        """Whether the deadline of the whole call, not only of one try, has passed."""
        return self._end is not None and time.monotonic() >= self._end - 0.01


class Caller:
    """Makes the calls of one client."""

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy

    async def call(self, make: Callable[[float], Awaitable[T]], timeout: float, *, repeatable: bool = True) -> T:
        """Awaits `make(seconds left)`, and retries after UNAVAILABLE if `repeatable`."""
        attempts = Attempts(self.policy, timeout)
        while True:
            try:
                return await make(attempts.left())
            except Unavailable as error:
                if not repeatable:
                    raise
                await attempts.after(error)

    async def stream(self, make: Callable[[float], AsyncIterator[T]], timeout: float) -> AsyncIterator[T]:
        """Yields from `make(seconds left)`. Retries only until the first item arrives; after that a broken stream is an
        error, because the reader has used part of it."""
        attempts = Attempts(self.policy, timeout)
        while True:
            started = False
            stream = make(attempts.left())
            try:
                async for item in stream:
                    started = True
                    yield item
                return
            except Unavailable as error:
                if started:
                    raise
                await attempts.after(error)
            finally:
                await _close(stream)

    async def resumed(
        self, make: Callable[[float], AsyncIterator[T]], timeout: float | None, *, one_call: float = GENERATE
    ) -> AsyncIterator[T]:
        """Yields from `make` repeatedly until one stream ends normally; `make` requests the missing items. A stream
        that exceeds `one_call` seconds, or the service's own limit, is reopened."""
        attempts = Attempts(self.policy, timeout)
        while True:
            stream = make(attempts.left(one_call))
            try:
                async for item in stream:
                    attempts.succeeded()
                    yield item
                return
            except Unavailable as error:
                await attempts.after(error)
            except DeadlineExceeded:
                if attempts.expired():
                    raise
                await asyncio.sleep(self.policy.first)
            finally:
                await _close(stream)


class Page(Protocol):
    """A response of a List call."""

    @property
    def next_page_token(self) -> str:
        """Empty on the last page."""
        ...


P = TypeVar("P", bound=Page)


async def pages(fetch: Callable[[str], Awaitable[P]]) -> AsyncIterator[P]:
    """All pages, given `fetch(page_token)`."""
    token = ""
    while True:
        page = await fetch(token)
        yield page
        token = page.next_page_token
        if not token:
            return


async def _close(stream: AsyncIterator[T]) -> None:
    """Closes a stream whose reader may have stopped early now, not when it is garbage-collected."""
    aclose = getattr(stream, "aclose", None)
    if aclose is not None:
        await aclose()


def chunked(items: Iterable[M], max_bytes: int = 4 * 1024 * 1024) -> Iterator[list[M]]:
    """Lists of consecutive messages, each of at most `max_bytes` encoded (or of one larger message)."""
    chunk: list[M] = []
    size = 0
    for item in items:
        length = item.ByteSize()
        if chunk and size + length > max_bytes:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += length
    if chunk:
        yield chunk
