"""Reward model: trained from base on all preferences so far, measured on held-out ones, put into service."""

from __future__ import annotations

import statistics

from accord.controller import v1 as controller_v1
from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_controller.spec.validation import RELIABILITY
from accord_controller.stages import facts
from accord_controller.stages.context import StageContext, key
from accord_controller.stages.heldout import earlier_samples, finish_stage
from accord_controller.stages.preference_examples import batches, to_examples, to_judged
from accord_controller.stages.scoring import deviation, score_samples
from accord_controller.stages.steps import Batch, Plan, open_training, run_steps


async def reward_model(work: StageContext, iteration: int) -> None:
    """Runs the stage; its result names the reward model and its held-out accuracy."""
    part = await _same_as_before(work, iteration)
    metrics: dict[str, float] = {}
    if part is None:
        async with work.leased("trainer"):
            part, metrics = await _train(work, iteration)
    part.also_learnt_from.extend(_came_from(work))
    await work.client.reward.load_model(part.reward_model)
    if key(iteration, "reward_model", "scorer") not in work.ledger:
        scorer = await _normalised(work, part.reward_model)
        await work.journal.record(key(iteration, "reward_model", "scorer"), scorer)
    accuracy = (
        f"held-out accuracy {part.rm_accuracy:.3f}" if part.HasField("rm_accuracy") else "no held-out preferences"
    )
    await finish_stage(work, controller_v1.STAGE_REWARD_MODEL, part, accuracy, metrics)


def _came_from(work: StageContext) -> list[types_v1.WeightsRef]:
    """The weights that the reward model is trained from, and the reward models that are mixed with it."""
    mixed = [scorer.model_digest for scorer in work.spec.reward_model.extra_scorers if scorer.model_digest]
    base = work.ledger.need(facts.REWARD_BASE, types_v1.WeightsRef)
    return [base, *(types_v1.WeightsRef(digest=digest) for digest in mixed)]


def training_id(work: StageContext, iteration: int) -> str:
    """The reward model's training."""
    return f"{work.run_id}-{iteration}-reward-model"


async def _same_as_before(work: StageContext, iteration: int) -> controller_v1.IterationResult | None:
    """The earlier reward model when it learnt from the very same preferences (imported ones do not grow)."""
    if iteration == 1:
        return None
    before = facts.iteration_so_far(work.ledger, iteration - 1)
    if before.preference_snapshot != facts.iteration_so_far(work.ledger, iteration).preference_snapshot:
        return None
    part = controller_v1.IterationResult(reward_model=before.reward_model)
    if before.HasField("rm_accuracy"):
        part.rm_accuracy = before.rm_accuracy
    await work.journal.tell("replayed", "the preferences are those of the iteration before, and so is the reward model")
    return part


async def _train(work: StageContext, iteration: int) -> tuple[controller_v1.IterationResult, dict[str, float]]:
    """Trains and measures the reward model."""
    digest = facts.iteration_so_far(work.ledger, iteration).preference_snapshot
    train = await _examples(work, digest, preference_v1.SPLIT_TRAIN)
    heldout = await _examples(work, digest, preference_v1.SPLIT_HELDOUT)
    spec = work.spec.reward_model
    order = batches(
        train, epochs=spec.epochs, size=spec.batch_size, seed=work.seed("reward_model", iteration, "shuffle")
    )

    async def batch(step: int) -> Batch:
        # Not recorded: the snapshot is immutable, and the order follows from the seed.
        return Batch(preferences=order[step - 1])

    opened = await open_training(
        work,
        trainer_v1.Training(
            training_id=training_id(work, iteration),
            algorithm=spec.algorithm,
            init=work.ledger.need(facts.REWARD_BASE, types_v1.WeightsRef),
            options=spec.options,
            seed=work.seed("reward_model", iteration),
            checkpoint_every=max(5, len(order) // 8),
            compute_dtype=facts.compute_dtype(work),
        ),
    )
    await run_steps(work, opened, Plan(iteration, "reward_model", len(order), publish=False, batch=batch))
    metrics = {}
    token = work.services.token("trainer")
    if heldout:
        put = await work.client.trainer.put_experience(opened.training_id, preferences=heldout, lease_token=token)
        metrics = await work.client.trainer.evaluate(opened.training_id, put.batch_id)
    weights = await work.client.trainer.publish(opened.training_id, lease_token=token)
    part = controller_v1.IterationResult(reward_model=weights)
    if "accuracy" in metrics:
        part.rm_accuracy = metrics["accuracy"]
    return part, {f"heldout_{name}": value for name, value in metrics.items()}


async def _examples(
    work: StageContext, digest: str, split: preference_v1.Split.ValueType
) -> list[trainer_v1.PreferenceExample]:
    # Held-out accuracy counts every judgement alike, so that it means the same whatever was trained on.
    weighted = work.spec.reward_model.weighting == RELIABILITY and split == preference_v1.SPLIT_TRAIN
    weighting = preference_v1.WEIGHTING_RELIABILITY if weighted else None
    records = work.client.preferences.export_snapshot(digest, split=split, weighting=weighting)
    made = to_examples if split == preference_v1.SPLIT_TRAIN else to_judged
    examples = made([record async for record in records])
    # Those of no weight teach nothing, and a batch of them alone is refused.
    return [example for example in examples if not (example.HasField("weight") and example.weight == 0)]


async def _normalised(work: StageContext, weights: types_v1.WeightsRef) -> reward_v1.ScorerSpec:
    """The reward model as a scorer whose scores have mean 0 and variance 1 on answers of the base policy."""
    scorer = reward_v1.ScorerSpec(name="model", model_digest=weights.digest)
    scored = await score_samples(work, await earlier_samples(work, 0), await facts.prompts(work), [scorer])
    values = [each.score.value for each in scored]
    scorer.weight, scorer.shift, scorer.scale = 1.0, statistics.fmean(values), deviation(values)
    return scorer
