"""A judge works through a queue: task after task, each verdict stored before the next question."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from accord.judge.model import JudgeModel
from accord.judge.verdict import Unreadable, compare, rank
from accord.preference import v1 as preference_v1
from accord.resources.preferences import Preferences

LEASE_SECONDS = 600.0


@dataclass
class Verdicts:
    """The counts of a judge. `skipped`: tasks without a readable verdict, or of a kind that it cannot judge."""

    given: int = 0
    skipped: set[str] = field(default_factory=set)


async def judge_queue(
    service: Preferences,
    model: JudgeModel,
    name: str,
    queue: str,
    *,
    instructions: str = "",
    count: int | None = None,
    progress: Callable[[Verdicts], Awaitable[None]] | None = None,
) -> Verdicts:
    """Judges open tasks of `queue` ("": any) as annotator `name` of kind MODEL until none is left, or `count` of them.

    A reply that cannot be read is a skip, never data. On an error the leased task is released.
    """
    annotator = preference_v1.Annotator(annotator_id=name, kind=preference_v1.ANNOTATOR_KIND_MODEL)
    done = Verdicts()
    resume = True  # start with the task that a killed predecessor leased
    while count is None or done.given < count:
        lease = await service.lease_task(annotator, ttl_seconds=LEASE_SECONDS, queue=queue, resume=resume)
        resume = False
        if lease is None:
            break
        if lease.task.task_id in done.skipped:
            await service.release_task(lease.lease_id)
            break
        try:
            feedback = await _judge(model, lease, instructions)
        except Unreadable:
            feedback = None
        except BaseException:
            await service.release_task(lease.lease_id)
            raise
        if feedback is None:
            done.skipped.add(lease.task.task_id)
            await service.release_task(lease.lease_id)
        else:
            feedback.annotator.CopyFrom(annotator)
            await service.submit(feedback, lease_id=lease.lease_id)
            done.given += 1
        if progress is not None:
            await progress(done)
    return done


async def _judge(model: JudgeModel, lease: preference_v1.TaskLease, instructions: str) -> preference_v1.Feedback | None:
    """The judgement of a leased task; None for a rating, which a judge that compares pairs cannot give."""
    task = lease.task
    ids = [completion.completion_id for completion in lease.completions]
    texts = [completion.text for completion in lease.completions]
    prompt = lease.prompt.conversation
    feedback = preference_v1.Feedback(prompt_id=task.prompt_id, task_id=task.task_id)
    if task.kind == preference_v1.TASK_KIND_COMPARISON:
        better = await compare(model, prompt, texts[0], texts[1], instructions)
        chosen, rejected = (ids[0], ids[1]) if better >= 0 else (ids[1], ids[0])
        feedback.comparison.CopyFrom(preference_v1.Comparison(chosen_id=chosen, rejected_id=rejected, tie=better == 0))
        return feedback
    if task.kind == preference_v1.TASK_KIND_RANKING:
        ranks = await rank(model, prompt, texts, instructions)
        feedback.ranking.ranks.extend(
            preference_v1.Rank(completion_ids=[ids[place] for place in places]) for places in ranks
        )
        return feedback
    return None
