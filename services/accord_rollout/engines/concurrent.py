"""Generates many samples at once and yields each as it finishes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from accord_rollout.engine import Completion, Failed, Job


async def as_finished(
    jobs: Sequence[Job], generate: Callable[[Job], Awaitable[Completion | Failed]], running: set[asyncio.Task[Any]]
) -> AsyncGenerator[Completion | Failed, None]:
    """Starts all jobs at once. Closing the iterator, or an error in one job, cancels the rest.

    While they run, its tasks are in `running`. If other code cancels one, its engine has died: it becomes a failure.
    """
    finished: asyncio.Queue[tuple[Job, asyncio.Task[Completion | Failed]]] = asyncio.Queue()

    async def run(job: Job) -> Completion | Failed:
        return await generate(job)

    def start(job: Job) -> asyncio.Task[Completion | Failed]:
        task = asyncio.create_task(run(job))
        task.add_done_callback(lambda done: finished.put_nowait((job, done)))
        return task

    tasks = {start(job) for job in jobs}
    running |= tasks
    try:
        for _ in jobs:
            job, task = await finished.get()
            yield engine_died(job) if task.cancelled() else task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        running -= tasks


def engine_died(job: Job) -> Failed:
    """The failure of a sample whose engine ended before it was finished."""
    return Failed(job.index, "ENGINE_DIED", "The engine's processes ended. Send the sample again.", retryable=True)
