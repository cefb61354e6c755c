"""Policy: sample, score, step, publish, repeat. The experience of a step is recorded before it is sent to the trainer.

Generation and training alternate, or overlap if `max_staleness` is above 0 (overlap.py).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace

from accord.controller import v1 as controller_v1
from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_controller.ledger.keys import experience_key, key
from accord_controller.stages.context import StageContext
from accord_controller.stages.engine_identity import check_same_engine
from accord_controller.stages.heldout import finish_stage
from accord_controller.stages.overlap import Overlap
from accord_controller.stages.pruning import free_old_versions
from accord_controller.stages.sampling import mean_tokens, request_samples
from accord_controller.stages.scoring import score_samples
from accord_controller.stages.seeds import turn
from accord_controller.stages.steps import Batch, Plan, catch_up, open_training, run_steps


async def policy(context: StageContext, iteration: int) -> None:
    """Runs the stage; its result names the candidate."""
    await context.client.reward.load_model(context.reward_model(iteration))
    plan = make_plan(context, iteration)
    async with context.leased("rollout", "trainer"):
        opened = await open_training(context, training(context, iteration))
        done = await catch_up(context, opened, plan)
        opened = await context.client.trainer.training(opened.training_id)
        weights = await activate(context, opened)
        if context.spec.policy.max_staleness:
            await _overlapping(context, opened, plan, done, weights)
        else:
            await _alternating(context, opened, plan)
        token = context.services.token("trainer")
        # Evaluation needs the candidate as a training, not only its weights.
        await context.client.trainer.checkpoint(opened.training_id, lease_token=token)
        weights = await context.client.trainer.publish(opened.training_id, lease_token=token)
    part = controller_v1.IterationResult(policy=weights)
    await finish_stage(context, controller_v1.STAGE_POLICY, part, f"{plan.total} steps")


def training(context: StageContext, iteration: int) -> trainer_v1.Training:
    """The request that opens and reopens the policy's training."""
    spec = context.spec.policy
    wanted = trainer_v1.Training(
        training_id=f"{context.run_id}-{iteration}-policy",
        algorithm=spec.algorithm,
        init=context.promoted(),
        reference=context.base() if spec.reference == "base" else context.promoted(),
        options=spec.options,
        seed=context.seed("policy", iteration),
        checkpoint_every=spec.checkpoint_every,
        max_staleness=spec.max_staleness,
        compute_dtype=context.compute_dtype(),
    )
    if spec.critic_from_reward_model:
        wanted.critic_init.CopyFrom(context.reward_model(iteration))
    return wanted


def make_plan(context: StageContext, iteration: int) -> Plan:
    """The steps of the stage."""

    async def batch(step: int) -> Batch:
        return await _experience(context, iteration, step, version=step - 1)

    return Plan(iteration, "policy", context.spec.policy.steps, publish=True, batch=batch)


async def _alternating(context: StageContext, opened: trainer_v1.Training, plan: Plan) -> None:
    """Takes each step on samples of the version that it trains."""

    async def after(result: trainer_v1.StepResult) -> None:
        await context.rollout.update_weights(result.weights)
        await free_old_versions(context, result.weights)

    await run_steps(context, opened, plan, after)


async def _overlapping(
    context: StageContext, opened: trainer_v1.Training, plan: Plan, done: int, active: types_v1.WeightsRef
) -> None:
    """Takes each step on samples that are at most `max_staleness` versions old, generated during earlier steps."""
    staleness = context.spec.policy.max_staleness
    # Batches are generated one after the other, so that each is as fresh as possible. If weights change between two
    # tokens, the next batch need not wait for the long responses of the previous batch.
    in_flight = (await context.rollout.status()).updates_in_flight
    generating = asyncio.Semaphore(1 + staleness if in_flight else 1)

    async def make(step: int, least: int) -> Batch:
        return await _experience(context, plan.iteration, step, min_version=least, generating=generating)

    overlap = Overlap(staleness, range(done + 1, plan.total + 1), active, make, context.rollout.update_weights)

    async def after(result: trainer_v1.StepResult) -> None:
        await overlap.after(result.weights)
        await free_old_versions(context, result.weights, *overlap.in_use())

    async with overlap.open():
        await run_steps(context, opened, replace(plan, batch=overlap.batch), after)


async def activate(context: StageContext, opened: trainer_v1.Training) -> types_v1.WeightsRef:
    """Checks that the rollout engine still computes the same way, then activates the training's current version on
    it."""
    await check_same_engine(context)
    weights = opened.init
    if opened.version:
        weights = await context.client.trainer.publish(
            opened.training_id, lease_token=context.services.token("trainer")
        )
    await context.rollout.update_weights(weights)
    return weights


async def _experience(
    context: StageContext,
    iteration: int,
    step: int,
    *,
    version: int | None = None,
    min_version: int | None = None,
    generating: AbstractAsyncContextManager[object] | None = None,
) -> Batch:
    """The scored samples of a step: the recorded ones, or new ones that are recorded before use. `generating` is held
    while they are generated."""
    name = experience_key(iteration, "policy", step)
    recorded = await context.ledger.read(name, trainer_v1.ScoredSample)
    if recorded is not None:
        return Batch(samples=recorded, metrics=_metrics(recorded))
    spec = context.spec.policy
    train = await context.prompts_of(preference_v1.SPLIT_TRAIN)
    prompts = turn(
        train,
        lambda prompt: prompt.prompt_id,
        spec.prompts_per_step,
        step - 1,
        context.spec.seed,
        "policy",
        iteration,
    )
    async with generating or nullcontext():
        began = time.monotonic()
        samples = await request_samples(
            context,
            key(iteration, "policy", step).replace("/", "-"),
            prompts,
            n=spec.samples_per_prompt,
            version=version,
            min_version=min_version,
            seed_parts=("policy", iteration, step),
        )
    sampled = time.monotonic()
    scored = await score_samples(
        context, samples, {prompt.prompt_id: prompt for prompt in prompts}, reward_scorers(context, iteration)
    )
    experience = [trainer_v1.ScoredSample(sample=each.sample, score=each.score.value) for each in scored]
    await context.recorder.record_all(name, trainer_v1.ScoredSample, experience)
    wanted = len(prompts) * spec.samples_per_prompt
    return Batch(
        samples=experience,
        metrics={
            **_metrics(experience),
            "generate_seconds": sampled - began,
            "score_seconds": time.monotonic() - sampled,
            "dropped_samples": wanted - len(experience),
        },
    )


def reward_scorers(context: StageContext, iteration: int) -> list[reward_v1.ScorerSpec]:
    """The scorers of the reward: the normalised reward model and the spec's extra scorers."""
    return [context.reward_scorer(iteration), *context.spec.reward_model.extra_scorers]


def _metrics(experience: list[trainer_v1.ScoredSample]) -> dict[str, float]:
    """Mean score and length of the samples; the trainer's own figures of the same name take precedence."""
    samples: list[types_v1.Sample] = [each.sample for each in experience]
    ended = [sample.finish_reason == types_v1.FINISH_REASON_STOP for sample in samples]
    return {
        "score": sum(each.score for each in experience) / len(experience),
        "response_tokens": mean_tokens(samples),
        "eos_rate": sum(ended) / len(ended),
    }
