"""Reward model: train it from its base on all preferences so far, measure it on held-out ones, load it for scoring."""

from __future__ import annotations

import statistics

from accord.controller import v1 as controller_v1
from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_controller.ledger.keys import scorer_key
from accord_controller.spec.validation import RELIABILITY
from accord_controller.stages.context import StageContext
from accord_controller.stages.heldout import earlier_samples, finish_stage
from accord_controller.stages.preference_examples import batches, to_examples, to_judged
from accord_controller.stages.scoring import deviation, score_samples
from accord_controller.stages.steps import Batch, Plan, open_training, run_steps


async def reward_model(context: StageContext, iteration: int) -> None:
    """Runs the stage; its result names the reward model and its held-out accuracy."""
    part = await _reused(context, iteration)
    metrics: dict[str, float] = {}
    if part is None:
        async with context.leased("trainer"):
            part, metrics = await _train(context, iteration)
    part.also_learnt_from.extend(_came_from(context))
    await context.client.reward.load_model(part.reward_model)
    if scorer_key(iteration) not in context.ledger:
        scorer = await _normalised(context, part.reward_model)
        await context.recorder.record(scorer_key(iteration), scorer)
    accuracy = (
        f"held-out accuracy {part.rm_accuracy:.3f}" if part.HasField("rm_accuracy") else "no held-out preferences"
    )
    await finish_stage(context, controller_v1.STAGE_REWARD_MODEL, part, accuracy, metrics)


def _came_from(context: StageContext) -> list[types_v1.WeightsRef]:
    """The weights that the reward model starts from, and the reward models that are mixed with it."""
    mixed = [scorer.model_digest for scorer in context.spec.reward_model.extra_scorers if scorer.model_digest]
    base = context.reward_base()
    return [base, *(types_v1.WeightsRef(digest=digest) for digest in mixed)]


def training_id(context: StageContext, iteration: int) -> str:
    """The reward model's training."""
    return f"{context.run_id}-{iteration}-reward-model"


async def _reused(context: StageContext, iteration: int) -> controller_v1.IterationResult | None:
    """The previous reward model, if it learnt from the same preferences (imported ones do not grow)."""
    if iteration == 1:
        return None
    before = context.iteration_so_far(iteration - 1)
    if before.preference_snapshot != context.iteration_so_far(iteration).preference_snapshot:
        return None
    part = controller_v1.IterationResult(reward_model=before.reward_model)
    if before.HasField("rm_accuracy"):
        part.rm_accuracy = before.rm_accuracy
    await context.recorder.emit(
        "replayed", "the preferences have not changed, so the reward model of the previous iteration is reused"
    )
    return part


async def _train(context: StageContext, iteration: int) -> tuple[controller_v1.IterationResult, dict[str, float]]:
    """Trains and measures the reward model."""
    digest = context.iteration_so_far(iteration).preference_snapshot
    train = await _examples(context, digest, preference_v1.SPLIT_TRAIN)
    heldout = await _examples(context, digest, preference_v1.SPLIT_HELDOUT)
    spec = context.spec.reward_model
    order = batches(
        train, epochs=spec.epochs, size=spec.batch_size, seed=context.seed("reward_model", iteration, "shuffle")
    )

    async def batch(step: int) -> Batch:
        # Not recorded: the snapshot is immutable, and the order follows from the seed.
        return Batch(preferences=order[step - 1])

    opened = await open_training(
        context,
        trainer_v1.Training(
            training_id=training_id(context, iteration),
            algorithm=spec.algorithm,
            init=context.reward_base(),
            options=spec.options,
            seed=context.seed("reward_model", iteration),
            checkpoint_every=max(5, len(order) // 8),
            compute_dtype=context.compute_dtype(),
        ),
    )
    await run_steps(context, opened, Plan(iteration, "reward_model", len(order), publish=False, batch=batch))
    metrics = {}
    token = context.services.token("trainer")
    if heldout:
        put = await context.client.trainer.put_experience(opened.training_id, preferences=heldout, lease_token=token)
        metrics = await context.client.trainer.evaluate(opened.training_id, put.batch_id)
    weights = await context.client.trainer.publish(opened.training_id, lease_token=token)
    part = controller_v1.IterationResult(reward_model=weights)
    if "accuracy" in metrics:
        part.rm_accuracy = metrics["accuracy"]
    return part, {f"heldout_{name}": value for name, value in metrics.items()}


async def _examples(
    context: StageContext, digest: str, split: preference_v1.Split.ValueType
) -> list[trainer_v1.PreferenceExample]:
    # Held-out accuracy weights all judgements equally, so it does not depend on the training's weighting.
    weighted = context.spec.reward_model.weighting == RELIABILITY and split == preference_v1.SPLIT_TRAIN
    weighting = preference_v1.WEIGHTING_RELIABILITY if weighted else None
    records = context.client.preferences.export_snapshot(digest, split=split, weighting=weighting)
    made = to_examples if split == preference_v1.SPLIT_TRAIN else to_judged
    examples = made([record async for record in records])
    # Examples with weight 0 teach nothing, and the trainer refuses a batch that has no others.
    return [example for example in examples if not (example.HasField("weight") and example.weight == 0)]


async def _normalised(context: StageContext, weights: types_v1.WeightsRef) -> reward_v1.ScorerSpec:
    """The reward model as a scorer whose scores have mean 0 and variance 1 on answers of the base policy."""
    scorer = reward_v1.ScorerSpec(name="model", model_digest=weights.digest)
    scored = await score_samples(context, await earlier_samples(context, 0), await context.prompts(), [scorer])
    values = [each.score.value for each in scored]
    scorer.weight, scorer.shift, scorer.scale = 1.0, statistics.fmean(values), deviation(values)
    return scorer
