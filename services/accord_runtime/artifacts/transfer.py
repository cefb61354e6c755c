"""Limits of a transfer: a deadline, and a minimum number of bytes in each time window."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from accord.errors import Cancelled, DeadlineExceeded, Unavailable

T = TypeVar("T")
_CLEANUP_SECONDS = 5.0


@dataclass(frozen=True)
class Limits:
    """`total_seconds` limits one source, including verification. A source that sends fewer than `stall_bytes` in
    `stall_seconds` is abandoned."""

    total_seconds: float = 600.0
    stall_seconds: float = 30.0
    stall_bytes: int = 2**16


class Progress:
    """One transfer. A transport reports each piece by `arrived`, from any thread."""

    def __init__(self, uri: str, limits: Limits) -> None:
        self.uri = uri
        self.limits = limits
        self._bytes = 0
        self._lock = threading.Lock()
        self._given_up = threading.Event()

    def arrived(self, size: int) -> None:
        """Counts bytes. Raises Cancelled if the transfer was abandoned, which also ends work in a thread."""
        if self._given_up.is_set():
            raise Cancelled(f"the transfer from {self.uri} was abandoned", reason="TRANSFER_GIVEN_UP")
        with self._lock:
            self._bytes += size

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. Unavailable, TRANSFER_STALLED, if bytes stop arriving."""
        task = asyncio.ensure_future(work)
        try:
            seen = -1
            while True:
                done, _ = await asyncio.wait({task}, timeout=self.limits.stall_seconds)
                if done:
                    return task.result()
                if self._bytes - seen < self.limits.stall_bytes:
                    raise Unavailable(
                        f"{self.uri} sent fewer than {self.limits.stall_bytes} bytes in "
                        f"{self.limits.stall_seconds:g} s, {self._bytes} in total. Is its server running?",
                        reason="TRANSFER_STALLED",
                        metadata={"uri": self.uri, "bytes": str(self._bytes)},
                    )
                seen = self._bytes
        finally:
            self._given_up.set()
            task.cancel()
            await asyncio.wait({task}, timeout=_CLEANUP_SECONDS)  # the task deletes its partial files


async def within(limits: Limits, uri: str, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. DeadlineExceeded, FETCH_TIMEOUT, after `limits.total_seconds`."""
    deadline = asyncio.timeout(limits.total_seconds)
    try:
        async with deadline:
            return await work
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise DeadlineExceeded(
            f"{uri} was not fetched and verified within {limits.total_seconds:g} s. Allow more time (--fetch-seconds), "
            "or publish the weights closer to this service",
            reason="FETCH_TIMEOUT",
            metadata={"uri": uri},
        ) from error
