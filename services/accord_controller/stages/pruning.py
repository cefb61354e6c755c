"""Room while a run goes on: trainings that are over, and published versions that a newer one has replaced."""

from __future__ import annotations

import logging

from accord.errors import NotFound
from accord.types import v1 as types_v1
from accord_controller.ledger.retention import find_needed, finished_training_ids
from accord_controller.stages.context import StageContext

log = logging.getLogger(__name__)


async def free_old_versions(context: StageContext, current: types_v1.WeightsRef, *others: types_v1.WeightsRef) -> None:
    """Frees what this controller's runs published and nobody needs; `current` and `others` are needed. Every
    `checkpoint_every` steps; not at all while the trainer holds weights of somebody else, whose needs are not known
    here."""
    if current.version % context.spec.policy.checkpoint_every:
        return
    needed = await find_needed(context.store)
    kept = sorted(needed.digests | {weights.digest for weights in (current, *others)})
    trainings = [training.training_id async for training in context.client.trainer.trainings()]
    token = context.services.token("trainer")
    would = await context.client.trainer.free_artifacts(kept, trainings, dry_run=True, lease_token=token)
    foreign = [name for name in would.freed if not is_ours(name, needed.run_ids)]
    if foreign:
        log.info("%s: nothing is freed while the trainer keeps weights of others: %s", context.run_id, foreign[0])
    elif would.freed:
        await context.client.trainer.free_artifacts(kept, trainings, lease_token=token)


async def forget_finished(context: StageContext) -> None:
    """Deletes the run's trainings that are over: their memory, checkpoints and batches."""
    over = set(finished_training_ids(context.run_id, context.spec.iterations, context.ledger))
    there = {training.training_id async for training in context.client.trainer.trainings()}
    if not over & there:
        return
    async with context.leased("trainer"):
        for training_id in sorted(over & there):
            try:
                await context.client.trainer.delete_training(training_id, lease_token=context.services.token("trainer"))
            except NotFound:
                log.info("%s was gone already", training_id)


def is_ours(name: str, run_ids: set[str]) -> bool:
    """Whether an artifact (a path or an id, beginning with its training's id) was published for one of these runs."""
    # A folder that is being written begins with a dot.
    last = name.rstrip("/").rsplit("/", 1)[-1].lstrip(".")
    return any(last.startswith(f"{run_id}-") for run_id in run_ids)
