"""Simulated annotators: programs that stand in for people. They are real clients of the preference service: each leases
tasks, looks at the answers, and submits a judgement as an annotator of kind SIMULATED.

An annotator has a score for every answer and chooses noisily: P(a over b) = sigmoid((s_a - s_b) / noise). More than two
answers are ranked by sampling from Plackett-Luce with utilities s / noise, which gives the same probability for every
pair.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import accord
from accord.errors import DataLoss, FailedPrecondition
from accord.preference import v1 as preference_v1
from accord_controller.stages.seeds import generator

LEASE_SECONDS = 15
POLL_SECONDS = 0.25
STALL_SECONDS = 120.0


def sample_order(scores: Sequence[float], noise: float, random_source: random.Random) -> list[int]:
    """Indices best first, sampled from Plackett-Luce with utilities scores / noise (Gumbel-max)."""
    keys = [score / noise - math.log(-math.log(_open_unit(random_source))) for score in scores]
    return sorted(range(len(scores)), key=lambda index: -keys[index])


def judge(
    lease: preference_v1.TaskLease, scores: Mapping[str, float], *, noise: float, seed: int
) -> preference_v1.Feedback:
    """The judgement of a leased task. It depends on the seed, the task's answers and the number of earlier judgements,
    not on the annotator or the time. DataLoss if an answer has no score."""
    task = lease.task
    texts = {completion.completion_id: completion.text for completion in lease.completions}
    missing = [completion_id for completion_id in task.completion_ids if completion_id not in scores]
    if missing:
        raise DataLoss(f"task {task.task_id} has answers without a score: {', '.join(missing)}")
    randomness = generator(
        seed,
        "annotator",
        task.prompt_id,
        *(texts[completion_id] for completion_id in task.completion_ids),
        task.answers,
    )
    order = sample_order([scores[completion_id] for completion_id in task.completion_ids], noise, randomness)
    ordered = [task.completion_ids[index] for index in order]
    feedback = preference_v1.Feedback(prompt_id=task.prompt_id, task_id=task.task_id)
    if task.kind == preference_v1.TASK_KIND_COMPARISON:
        feedback.comparison.chosen_id, feedback.comparison.rejected_id = ordered
    else:
        feedback.ranking.ranks.extend(preference_v1.Rank(completion_ids=[completion_id]) for completion_id in ordered)
    return feedback


def name_annotators(count: int) -> list[preference_v1.Annotator]:
    """`simulated-0`, `simulated-1`, ..., of kind SIMULATED."""
    return [
        preference_v1.Annotator(annotator_id=f"simulated-{number}", kind=preference_v1.ANNOTATOR_KIND_SIMULATED)
        for number in range(count)
    ]


async def annotate_queue(
    client: accord.Client,
    queue: str,
    scores: Mapping[str, float],
    *,
    annotators: int,
    noise: float,
    seed: int,
    progress: Callable[[int], Awaitable[None]],
) -> int:
    """Answers every open task of `queue`; the annotators take turns. Returns the number of judgements.

    `progress` is awaited after each. Tasks that a killed controller had leased return to the queue when the lease
    expires.
    """
    names = name_annotators(annotators)
    given, idle, last_progress = 0, 0, time.monotonic()
    while True:
        annotator = names[(given + idle) % len(names)]
        lease = await client.preferences.lease_task(annotator, ttl_seconds=LEASE_SECONDS, queue=queue)
        if lease is not None:
            feedback = judge(lease, scores, noise=noise, seed=seed)
            feedback.annotator.CopyFrom(annotator)
            await client.preferences.submit(feedback, lease_id=lease.lease_id)
            given, idle, last_progress = given + 1, 0, time.monotonic()
            await progress(given)
            continue
        idle += 1
        if idle % len(names):
            continue
        found = await client.preferences.queue(queue)
        if found.open_tasks == 0:
            return given
        if found.leased_tasks:  # another annotator holds them; a lease expires
            last_progress = time.monotonic()
        if time.monotonic() - last_progress > STALL_SECONDS:
            raise FailedPrecondition(
                f"Queue {queue} has open tasks but leases none to the simulated annotators. Are they excluded?",
                reason="QUEUE_STUCK",
            )
        await asyncio.sleep(POLL_SECONDS)


def _open_unit(random_source: random.Random) -> float:
    """A number in the open interval (0, 1)."""
    while True:
        value = random_source.random()
        if 0 < value < 1:
            return value
