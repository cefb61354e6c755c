"""Frees space during a run: finished trainings, and published versions that a newer one has replaced."""

from __future__ import annotations

import logging

from accord.errors import NotFound
from accord.types import v1 as types_v1
from accord_controller.ledger.retention import find_needed, finished_training_ids, published_by
from accord_controller.stages.context import StageContext

log = logging.getLogger(__name__)


async def free_old_versions(context: StageContext, current: types_v1.WeightsRef, *others: types_v1.WeightsRef) -> None:
    """Frees versions that this controller's runs published and no longer need; `current` and `others` stay. It runs
    every `checkpoint_every` steps, but not while the trainer holds weights of other clients, because their needs are
    unknown here."""
    if current.version % context.spec.policy.checkpoint_every:
        return
    needed = await find_needed(context.store)
    kept = sorted(needed.digests | {weights.digest for weights in (current, *others)})
    trainings = [training.training_id async for training in context.client.trainer.trainings()]
    token = context.services.token("trainer")
    would = await context.client.trainer.free_artifacts(kept, trainings, dry_run=True, lease_token=token)
    foreign = [name for name in would.freed if not published_by(name, needed.run_ids)]
    if foreign:
        log.info(
            "%s: nothing is freed while the trainer holds weights of other clients: %s", context.run_id, foreign[0]
        )
    elif would.freed:
        await context.client.trainer.free_artifacts(kept, trainings, lease_token=token)


async def delete_finished_trainings(context: StageContext) -> None:
    """Deletes the run's finished trainings: their memory, checkpoints and batches."""
    finished = set(finished_training_ids(context.run_id, context.spec.iterations, context.ledger))
    existing = {training.training_id async for training in context.client.trainer.trainings()}
    if not finished & existing:
        return
    async with context.leased("trainer"):
        for training_id in sorted(finished & existing):
            try:
                await context.client.trainer.delete_training(training_id, lease_token=context.services.token("trainer"))
            except NotFound:
                log.info("%s no longer exists", training_id)
