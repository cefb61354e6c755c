"""The one thread that computes: calls queue there and never overlap."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from accord.errors import Unavailable

T = TypeVar("T")


class ComputeThread:
    """Runs functions one after another, away from the event loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compute")
        self._stopping = threading.Event()

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`. Unavailable, DRAINING, if the service is shutting down."""

        def started() -> T:
            self.check_stopped()
            return work()

        return await asyncio.get_running_loop().run_in_executor(self._pool, started)

    def check_stopped(self) -> None:
        """Raises Unavailable, DRAINING, after `close` was called; long computations call it regularly."""
        if self._stopping.is_set():
            raise Unavailable("the trainer is shutting down; repeat the call when it is back", reason="DRAINING")

    async def close(self) -> None:
        """Signals the running computation to stop, and waits for it."""
        self._stopping.set()
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
