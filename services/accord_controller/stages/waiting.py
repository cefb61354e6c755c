"""How long the loop waits for people, and for what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp

from accord.controller import v1 as controller_v1
from accord.preference import v1 as preference_v1
from accord_controller.ledger.keys import key
from accord_controller.stages.context import StageContext

POLL_SECONDS = 2.0
# GetQueue counts feedback as recent if it is at most this many minutes old.
RECENT_MINUTES = 10


def why_enough(
    people: controller_v1.HumanAnnotators, queue: preference_v1.GetQueueResponse, tasks: int, waited: float
) -> str:
    """The reason that the run may continue, as a message; "" while it must wait. `waited`: seconds since the tasks were
    opened."""
    wanted = wanted_tasks(people, tasks)
    reached = ""
    if queue.done_tasks >= wanted:
        reached = f"{queue.done_tasks} tasks were answered ({wanted} required)"
    elif people.min_judgements and queue.feedback >= people.min_judgements:
        reached = f"{queue.feedback} judgements were given ({people.min_judgements} required)"
    if reached and people.HasField("min_agreement"):
        known = queue.HasField("alpha") and queue.alpha >= people.min_agreement
        reached = f"{reached}, with alpha {queue.alpha:.2f}" if known else ""
    if not reached and not queue.open_tasks:
        reached = "no open task is left"
    if not reached and people.HasField("max_wait_seconds") and waited >= people.max_wait_seconds and queue.feedback:
        reached = f"{waited:.0f} seconds have passed and {queue.feedback} judgements were given"
    return reached


def wanted_tasks(people: controller_v1.HumanAnnotators, tasks: int) -> int:
    """How many tasks must be answered."""
    return max(1, round(tasks * people.threshold))


def how_far(
    people: controller_v1.HumanAnnotators, state: preference_v1.GetQueueResponse, tasks: int, queue: str
) -> str:
    """The progress message: how many tasks are answered, how fast, and how long the rest may take."""
    wanted = wanted_tasks(people, tasks)
    text = f"waiting for people: {state.done_tasks} of {wanted} tasks answered"
    if state.recent_feedback:
        rate = state.recent_feedback / RECENT_MINUTES
        missing = min(
            max(0, wanted - state.done_tasks) * max(1, people.redundancy),
            max(0, people.min_judgements - state.feedback) if people.min_judgements else 1 << 62,
        )
        text += f", {rate:.1f} judgements per minute, about {missing / rate:.0f} minutes left"
    if people.HasField("min_agreement"):
        alpha = f"{state.alpha:.2f}" if state.HasField("alpha") else "not known yet"
        text += f", alpha {alpha} (required: {people.min_agreement:g})"
    return f"{text} (`accord annotate --queue {queue}`)"


async def wait_for_people(
    context: StageContext, iteration: int, queue: str, tasks: int, clock: Callable[[], float] = time.time
) -> None:
    """Waits until there is enough feedback. Unanswered tasks stay open for later iterations, unless the spec cancels
    the rest; the run cancels them at its end."""
    people = context.spec.feedback.people
    opened = await _opened(context, iteration, clock)
    shown = ""
    while True:
        state = await context.client.preferences.queue(queue, with_agreement=people.HasField("min_agreement"))
        if not shown:
            wanted = wanted_tasks(people, tasks)
            await context.recorder.emit("waiting", f"waiting for people to answer {wanted} tasks in queue {queue}")
        message = how_far(people, state, tasks, queue)
        if message != shown:
            shown = message
            await context.recorder.progress(int(state.done_tasks), wanted_tasks(people, tasks), message)
        reason = why_enough(people, state, tasks, clock() - opened)
        if reason:
            await context.recorder.emit("waiting", f"continuing: {reason}", {"judgements": float(state.feedback)})
            break
        await asyncio.sleep(POLL_SECONDS)
        context.check()
    if people.cancel_rest:
        await context.client.preferences.cancel_tasks(queue)


async def _opened(context: StageContext, iteration: int, clock: Callable[[], float]) -> float:
    """When the tasks of this iteration were opened, by the controller's clock; unchanged by a restart."""
    name = key(iteration, "collect", "opened")
    stamp = context.ledger.get(name, Timestamp)
    if stamp is None:
        stamp = Timestamp()
        stamp.FromMilliseconds(int(clock() * 1000))
        await context.recorder.record(name, stamp)
    return stamp.ToMilliseconds() / 1000
