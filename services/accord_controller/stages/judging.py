"""Language models judge an iteration's tasks: each works through the queue as an annotator of kind MODEL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from accord.controller import v1 as controller_v1
from accord.errors import FailedPrecondition, NotFound
from accord.judge.annotating import Verdicts, judge_queue
from accord.judge.endpoint import Endpoint
from accord.judge.model import JudgeModel
from accord.judge.policy import PolicyJudge
from accord_controller.spec.files import REGISTRY
from accord_controller.stages.context import StageContext

POLL_SECONDS = 1.0


async def judge_tasks(context: StageContext, queue: str, tasks: int) -> None:
    """Every judge answers the tasks of `queue` that it can. Tasks without a readable verdict are cancelled.
    FailedPrecondition, NO_VERDICTS, if no judge gave a readable verdict."""
    await _ask_all(context, queue, tasks)
    if (await context.client.preferences.queue(queue)).leased_tasks:
        # Another annotator holds a task. It will be answered, or return to the queue when the lease expires.
        while (await context.client.preferences.queue(queue)).leased_tasks:
            context.check()
            await asyncio.sleep(POLL_SECONDS)
        await _ask_all(context, queue, tasks)
    await context.client.preferences.cancel_tasks(queue)
    if not (await context.client.preferences.queue(queue)).feedback:
        raise FailedPrecondition(
            "No judge gave a readable verdict. Judges must answer in the form `Verdict: A`", reason="NO_VERDICTS"
        )


async def _ask_all(context: StageContext, queue: str, tasks: int) -> None:
    """Asks one judge after another, until none finds a task that it can answer."""
    spec = context.spec.feedback.judges
    wanted = tasks * spec.redundancy
    for judge in spec.judges:
        before = (await context.client.preferences.queue(queue)).feedback

        async def progress(done: Verdicts, before: int = before, name: str = judge.name) -> None:
            given = before + done.given
            skipped = f", {len(done.skipped)} unreadable" if done.skipped else ""
            await context.recorder.progress(given, wanted, f"{given} of {wanted} verdicts; {name}{skipped}")
            context.check()

        async with _model_of(context, judge) as model:
            done = await judge_queue(
                context.client.preferences, model, judge.name, queue, instructions=judge.instructions, progress=progress
            )
        if done.skipped:
            await context.recorder.emit(
                "left_out",
                f"{judge.name} gave no readable verdict on {len(done.skipped)} tasks; they are not counted",
                {"unreadable_verdicts": float(len(done.skipped))},
            )


@asynccontextmanager
async def _model_of(context: StageContext, judge: controller_v1.Judge) -> AsyncIterator[JudgeModel]:
    """The language model behind a judge. A policy holds the rollout lease while it judges."""
    if judge.WhichOneof("source") == "url":
        key = os.environ.get(judge.key_variable, "") if judge.key_variable else ""
        if judge.key_variable and not key:
            raise FailedPrecondition(
                f"The environment variable {judge.key_variable}, which holds the API key of judge {judge.name}, is not "
                "set. Set it for the controller",
                reason="NO_KEY",
            )
        yield Endpoint(judge.url, judge.model, key=key)
        return
    model = await context.store.get_model(judge.policy.removeprefix(REGISTRY))
    if model is None:
        raise NotFound(f"The model {judge.policy} no longer exists", reason="MODEL_NOT_FOUND")
    async with context.leased("rollout"):
        await context.rollout.update_weights(model.weights)
        yield PolicyJudge(context.rollout.generate)
