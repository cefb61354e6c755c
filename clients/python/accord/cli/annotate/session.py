"""An annotator's session: task after task, each judgement stored before the next task is shown."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from accord.cli.annotate import answers
from accord.cli.annotate.keys import END, Keys
from accord.cli.annotate.view import show_task
from accord.cli.options import Interrupted
from accord.cli.render.output import note
from accord.errors import FailedPrecondition, NotFound
from accord.preference import v1 as preference_v1
from accord.resources.preferences import Preferences

LEASE_SECONDS = 600.0
T = TypeVar("T")


class Skip(Exception):
    """The annotator skips this task."""


class Quit(Exception):
    """The annotator quits."""


@dataclass
class Tally:
    """The counts of this session."""

    answered: int = 0
    skipped: set[str] = field(default_factory=set)

    def summary(self, name: str) -> str:
        """One line for the annotator."""
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"{name}: {self.answered} {'answer' if self.answered == 1 else 'answers'} saved{skipped}"


async def annotate_tasks(
    service: Preferences, keys: Keys, name: str, queue: str, count: int | None, rng: random.Random | None = None
) -> Tally:
    """Leases tasks to `name` until none is open, `count` are judged or the annotator quits.

    Each judgement is stored at once; the task on the screen is released, also on Ctrl-C. `rng` shuffles the answers.
    """
    rng = rng or random.SystemRandom()
    annotator = preference_v1.Annotator(annotator_id=name, kind=preference_v1.ANNOTATOR_KIND_HUMAN)
    tally = Tally()
    while count is None or tally.answered < count:
        lease = await service.lease_task(annotator, ttl_seconds=LEASE_SECONDS, queue=queue)
        if lease is None:
            note(f"Nothing {'more ' if tally.answered else ''}to judge. {tally.summary(name)}.")
            return tally
        if lease.task.task_id in tally.skipped:
            await service.release_task(lease.lease_id)
            note(f"Only tasks that you skipped are left. Start again to see them. {tally.summary(name)}.")
            return tally
        try:
            await _one(service, keys, annotator, lease, tally, queue, rng)
        except Skip:
            tally.skipped.add(lease.task.task_id)
            await service.release_task(lease.lease_id)
        except Quit:
            await service.release_task(lease.lease_id)
            break
        except asyncio.CancelledError:
            await service.release_task(lease.lease_id)
            raise Interrupted(f"{tally.summary(name)}; the task on the screen was released") from None
    note(f"{tally.summary(name)}.")
    return tally


async def _one(
    service: Preferences,
    keys: Keys,
    annotator: preference_v1.Annotator,
    lease: preference_v1.TaskLease,
    tally: Tally,
    queue: str,
    rng: random.Random,
) -> None:
    """Shows one task and stores the judgement."""
    order = list(lease.completions)
    rng.shuffle(order)
    open_tasks = (await service.queue(queue)).open_tasks if queue else (await service.stats()).open_tasks
    show_task(lease.prompt, order, tally.answered, open_tasks)
    feedback = preference_v1.Feedback(prompt_id=lease.task.prompt_id, annotator=annotator, task_id=lease.task.task_id)
    shown = [completion.completion_id for completion in order]
    if lease.task.kind == preference_v1.TASK_KIND_COMPARISON:
        feedback.comparison.CopyFrom(await _compare(keys, shown))
    elif lease.task.kind == preference_v1.TASK_KIND_RANKING:
        example = " ".join(str(number) for number in range(1, len(shown) + 1))
        question = f"Best first, = for ties, for example {example}   (s skip, q quit): "
        feedback.ranking.CopyFrom(await _ask(keys, question, lambda line: answers.ranking(shown, line)))
    else:
        question = f"From {answers.WORST} (worst) to {answers.BEST} (best)   (s skip, q quit): "
        feedback.rating.CopyFrom(await _ask(keys, question, lambda line: answers.rating(shown[0], line)))
    try:
        await service.submit(feedback, lease_id=lease.lease_id)
        tally.answered += 1
    except (FailedPrecondition, NotFound) as error:
        note(f"This judgement was not accepted: {error.message}")
        tally.skipped.add(lease.task.task_id)


async def _compare(keys: Keys, shown: list[str]) -> preference_v1.Comparison:
    note("Which is better?  1   2   t tie   s skip   q quit")
    while True:
        key = await keys.key()
        if key in ("q", END):
            raise Quit
        if key == "s":
            raise Skip
        if key in ("1", "2", "t"):
            return answers.comparison(shown, key)
        note("Press 1, 2, t, s or q.")


async def _ask(keys: Keys, question: str, read: Callable[[str], T]) -> T:
    while True:
        note(question)
        line = await keys.line()
        if line is None or line.lower() == "q":
            raise Quit
        if line.lower() == "s":
            raise Skip
        try:
            return read(line)
        except ValueError as error:
            note(f"{error}.")
