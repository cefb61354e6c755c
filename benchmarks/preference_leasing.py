"""How long annotators wait for tasks, and for their answers to be stored: for benchmarks/preferences.py."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import statistics
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from preference_service import HUMAN, Measured, service

from accord.errors import AccordError
from accord.preference import v1 as preference_v1
from accord_preference.domain import canonical
from accord_preference.storage.opening import open_store
from accord_preference.storage.store import CompletionRow, PromptRow, TaskRow, Writer

T = TypeVar("T")


async def fill(tx: Writer, comparisons: int) -> None:
    """Open tasks: ten comparisons of the five answers of each prompt."""
    for first in range(0, comparisons, 10 * 100):
        prompts, answers, tasks = [], [], []
        for number in range(first, min(first + 1000, comparisons), 10):
            conversation = canonical.canonical_json([["user", f"question {number}"]])
            name = canonical.prompt_id(conversation)
            digest = canonical.prompt_record_digest(name, 1)
            prompts.append(PromptRow(name, conversation, "benchmark", 1, digest))
            texts = [f"answer {place} to question {number}" for place in range(5)]
            mine = [CompletionRow(canonical.completion_id(name, text, None), name, text, None) for text in texts]
            answers += mine
            for place, pair in enumerate(itertools.combinations([one.completion_id for one in mine], 2)):
                task = canonical.digest("task", f"[{number},{place}]")
                tasks.append(TaskRow(task, preference_v1.TASK_KIND_COMPARISON, name, pair, 1, "work", 1))
        await tx.add_prompts(prompts)
        await tx.add_completions(answers)
        await tx.add_tasks(tasks)


async def measure_leases(url: str, folder: Path, arguments: argparse.Namespace, result: Measured) -> None:
    store = await open_store(url)
    async with store.writing() as tx:
        await fill(tx, arguments.comparisons)
    await store.close()
    leased: list[float] = []
    answered: list[float] = []

    async def timed(call: Awaitable[T], into: list[float]) -> T:
        started = time.perf_counter()
        response = await call
        into.append(1000 * (time.perf_counter() - started))
        return response

    stop = asyncio.Event()

    async def over(seconds: float) -> bool:
        """Waits; True if the measurement ended in the meantime. Running calls are completed and counted."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
        return stop.is_set()

    async def annotate(stub: preference_v1.PreferenceServiceAsyncStub, number: int) -> None:
        rng = random.Random(number)
        who = preference_v1.Annotator(annotator_id=f"ann-{number}", kind=HUMAN)
        if await over(rng.uniform(0, arguments.think)):
            return
        for turn in itertools.count():
            request = preference_v1.LeaseTaskRequest(request_id=f"l-{number}-{turn}", annotator=who, queue="work")
            try:
                lease = (await timed(stub.LeaseTask(request, timeout=120), leased)).lease
                if await over(rng.expovariate(1 / arguments.think) if arguments.think else 0.001):
                    return
                ids = lease.task.completion_ids
                feedback = preference_v1.Feedback(
                    prompt_id=lease.prompt.prompt_id,
                    annotator=who,
                    comparison=preference_v1.Comparison(chosen_id=ids[0], rejected_id=ids[1]),
                    task_id=lease.task.task_id,
                )
                answer = preference_v1.SubmitFeedbackRequest(
                    request_id=f"s-{number}-{turn}", feedback=feedback, lease_id=lease.lease_id
                )
                await timed(stub.SubmitFeedback(answer, timeout=120), answered)
            except AccordError:
                result.failed += 1
            if stop.is_set():
                return

    async with service(url, folder) as stub:
        started = time.perf_counter()
        asyncio.get_running_loop().call_later(arguments.seconds, stop.set)
        await asyncio.gather(*(annotate(stub, number) for number in range(arguments.annotators)))
        result.leases_a_second = len(leased) / (time.perf_counter() - started)
    result.comparisons, result.annotators, result.leases = arguments.comparisons, arguments.annotators, len(leased)
    result.lease_ms, result.answer_ms = percentiles(leased), percentiles(answered)


def percentiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98]}
