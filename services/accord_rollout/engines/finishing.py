"""Many samples at once, handed on as they finish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from accord_rollout.engine import Completion, Failed, Job


async def as_finished(
    jobs: Sequence[Job], draw: Callable[[Job], Awaitable[Completion | Failed]], among: set[asyncio.Task[Any]]
) -> AsyncGenerator[Completion | Failed, None]:
    """Draws all jobs at once. Closing it, and an error of one of them, cancels the rest.

    Its tasks are in `among` meanwhile: one that somebody else cancels is a sample whose engine has died.
    """
    finished: asyncio.Queue[tuple[Job, asyncio.Task[Completion | Failed]]] = asyncio.Queue()

    async def run(job: Job) -> Completion | Failed:
        return await draw(job)

    def start(job: Job) -> asyncio.Task[Completion | Failed]:
        task = asyncio.create_task(run(job))
        task.add_done_callback(lambda done: finished.put_nowait((job, done)))
        return task

    tasks = {start(job) for job in jobs}
    among |= tasks
    try:
        for _ in jobs:
            job, task = await finished.get()
            yield died(job) if task.cancelled() else task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        among -= tasks


def died(job: Job) -> Failed:
    """The failure of a sample whose engine ended under it."""
    return Failed(job.index, "ENGINE_DIED", "the engine's processes ended; send it again", retryable=True)
