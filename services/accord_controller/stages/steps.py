"""Steps of a training, recorded one by one. Steps that a restarted trainer lost are replayed from the ledger.

The experience of step k is recorded before the step, and its result after it. A trainer that restarts at an earlier
version repeats the steps on the recorded experience and must reach the recorded digests. In a deterministic run, a
different digest is an error. In other runs, the steps after the first different one are removed from the ledger and
taken again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from accord.errors import DataLoss, FailedPrecondition
from accord.trainer import v1 as trainer_v1
from accord_controller.ledger.keys import key, step_key
from accord_controller.ledger.recorder import NewEvent
from accord_controller.stages.context import StageContext


@dataclass(frozen=True)
class Batch:
    """The experience of one step. `metrics` are reported with the step's own."""

    samples: Sequence[trainer_v1.ScoredSample] = ()
    preferences: Sequence[trainer_v1.PreferenceExample] = ()
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The steps of a training."""

    iteration: int
    # `policy` or `reward_model`: names the steps in the ledger.
    name: str
    total: int
    publish: bool
    # The batch of a step (from 1): read from the ledger, or made and recorded.
    batch: Callable[[int], Awaitable[Batch]]


def recorded_steps(context: StageContext, plan: Plan) -> int:
    """The number of steps with a result in the ledger."""
    count = 0
    while count < plan.total and step_key(plan.iteration, plan.name, count + 1) in context.ledger:
        count += 1
    return count


async def open_training(context: StageContext, training: trainer_v1.Training) -> trainer_v1.Training:
    """Opens a training, or finds the one that the trainer restored."""
    opened = await context.client.trainer.create_training(training, lease_token=context.services.token("trainer"))
    recorded = context.ledger.get(_threads_key(context, training), trainer_v1.Training)
    if recorded is None:
        await context.recorder.record(_threads_key(context, training), opened)
    elif context.spec.deterministic and recorded.compute_threads != opened.compute_threads:
        raise FailedPrecondition(
            f"The trainer computes with {opened.compute_threads} threads, but this deterministic training began with "
            f"{recorded.compute_threads}. Set --trainer-threads or OMP_NUM_THREADS to {recorded.compute_threads}",
            reason="OTHER_THREADS",
        )
    return opened


async def catch_up(context: StageContext, opened: trainer_v1.Training, plan: Plan) -> int:
    """Replays the recorded steps that a restored training lacks; returns the number of steps that are done.
    FailedPrecondition, REPLAY_DIVERGED; DataLoss, LEDGER_BEHIND, if the trainer has steps that the ledger lacks."""
    done = recorded_steps(context, plan)
    # The trainer is one step ahead: that step's result never reached the ledger. It is repeated with its request_id.
    if opened.version > done + 1:
        raise DataLoss(
            f"training {opened.training_id} is at version {opened.version}, the ledger at {done}. Was the controller's "
            "database restored from an older copy?",
            reason="LEDGER_BEHIND",
        )
    if opened.version < done:
        await context.recorder.emit(
            "replayed",
            f"{opened.training_id} restarted at version {opened.version}; replaying to version {done}",
            {"replayed_steps": done - opened.version},
        )
    for step in range(opened.version + 1, done + 1):
        recorded = context.ledger.need(step_key(plan.iteration, plan.name, step), trainer_v1.StepResult)
        result = await _take(context, opened.training_id, plan, step, await plan.batch(step), last=step == done)
        if result.digest != recorded.digest:
            await _diverged(context, plan, step, done, recorded, result)
            return step
        context.check()
    return done


async def run_steps(
    context: StageContext,
    opened: trainer_v1.Training,
    plan: Plan,
    after: Callable[[trainer_v1.StepResult], Awaitable[None]] | None = None,
) -> None:
    """Takes a training to `plan.total` steps. `after` is awaited after each new step is recorded."""
    done = await catch_up(context, opened, plan)
    context.recorder.status.step, context.recorder.status.total_steps = done, plan.total
    started = time.monotonic()
    for step in range(done + 1, plan.total + 1):
        began = time.monotonic()
        batch = await plan.batch(step)
        result = await _take(context, opened.training_id, plan, step, batch, last=True)
        now = time.monotonic()
        metrics = {
            **batch.metrics,
            **result.metrics,
            "step_seconds": result.seconds,
            "eta_seconds": (now - started) / (step - done) * (plan.total - step),
            "samples_per_second": (len(batch.samples) + len(batch.preferences)) / max(now - began, 1e-6),
        }
        context.recorder.status.step = step
        context.recorder.status.message = ""
        await context.recorder.record(
            step_key(plan.iteration, plan.name, step),
            result,
            NewEvent("step", f"step {step} of {plan.total}", metrics),
        )
        if after is not None:
            await after(result)


async def _take(
    context: StageContext, training_id: str, plan: Plan, step: int, batch: Batch, *, last: bool
) -> trainer_v1.StepResult:
    """Puts a batch and takes the step on it. Both are idempotent."""
    token = context.services.token("trainer")
    put = await context.client.trainer.put_experience(
        training_id, samples=batch.samples, preferences=batch.preferences, lease_token=token
    )
    return await context.client.trainer.step(
        training_id,
        put.batch_id,
        parent_version=step - 1,
        publish=plan.publish and last,
        request_id=f"{training_id}-{step}",
        lease_token=token,
    )


async def _diverged(
    context: StageContext,
    plan: Plan,
    step: int,
    done: int,
    recorded: trainer_v1.StepResult,
    result: trainer_v1.StepResult,
) -> None:
    """Handles a replayed step that gave a different result."""
    if context.spec.deterministic:
        raise FailedPrecondition(
            f"Replaying step {step} of {plan.name} in iteration {plan.iteration} gave {result.digest[:12]} instead of "
            f"{recorded.digest[:12]}: this machine computes differently, so a deterministic run cannot continue here. "
            "Resume it on the original machine, or start a new run",
            reason="REPLAY_DIVERGED",
            metadata={"recorded": recorded.digest, "replayed": result.digest},
        )
    first = step_key(plan.iteration, plan.name, step)
    prefix = key(plan.iteration, plan.name) + "/"
    forgotten = [
        name
        for name in context.ledger.names()
        if name.startswith(prefix)
        and (number := name.removeprefix(prefix).split("/")[0]).isdigit()
        and int(number) > step
    ]
    await context.recorder.record_entries(
        [context.ledger.message_entry(first, result)],
        NewEvent(
            "replayed",
            f"step {step} gave a different result when replayed; the {done - step} steps after it are taken again",
            {"forgotten_steps": done - step},
        ),
        forget=[first, *forgotten],
    )


def _threads_key(context: StageContext, training: trainer_v1.Training) -> str:
    return key(context.recorder.status.iteration, "training", training.training_id.removeprefix(f"{context.run_id}-"))
