"""Policy: sample, score, step, publish, again. The experience of a step is recorded before the trainer gets it.

In turn, or with `max_staleness` above 0 at the same time (overlap.py).
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
from accord_controller.stages import facts
from accord_controller.stages.context import StageContext, key
from accord_controller.stages.engine_identity import check_same_engine
from accord_controller.stages.heldout import finish_stage
from accord_controller.stages.overlap import Overlap
from accord_controller.stages.pruning import free_old_versions
from accord_controller.stages.sampling import ask_samples, mean_tokens
from accord_controller.stages.scoring import score_samples
from accord_controller.stages.seeds import turn
from accord_controller.stages.steps import Batch, Plan, catch_up, experience_key, open_training, run_steps


async def policy(work: StageContext, iteration: int) -> None:
    """Runs the stage; its result names the candidate."""
    await work.client.reward.load_model(facts.reward_model(work, iteration))
    plan = make_plan(work, iteration)
    async with work.leased("rollout", "trainer"):
        opened = await open_training(work, training(work, iteration))
        done = await catch_up(work, opened, plan)
        opened = await work.client.trainer.training(opened.training_id)
        weights = await put_into_force(work, opened)
        if work.spec.policy.max_staleness:
            await _overlapping(work, opened, plan, done, weights)
        else:
            await _in_turn(work, opened, plan)
        token = work.services.token("trainer")
        # So that the candidate itself, and not only its weights, is at hand when it is measured.
        await work.client.trainer.checkpoint(opened.training_id, lease_token=token)
        weights = await work.client.trainer.publish(opened.training_id, lease_token=token)
    part = controller_v1.IterationResult(policy=weights)
    await finish_stage(work, controller_v1.STAGE_POLICY, part, f"{plan.total} steps")


def training(work: StageContext, iteration: int) -> trainer_v1.Training:
    """The policy's training, as it is opened and found again."""
    spec = work.spec.policy
    wanted = trainer_v1.Training(
        training_id=f"{work.run_id}-{iteration}-policy",
        algorithm=spec.algorithm,
        init=facts.promoted(work),
        reference=facts.base(work) if spec.reference == "base" else facts.promoted(work),
        options=spec.options,
        seed=work.seed("policy", iteration),
        checkpoint_every=spec.checkpoint_every,
        max_staleness=spec.max_staleness,
        compute_dtype=facts.compute_dtype(work),
    )
    if spec.critic_from_reward_model:
        wanted.critic_init.CopyFrom(facts.reward_model(work, iteration))
    return wanted


def make_plan(work: StageContext, iteration: int) -> Plan:
    """The steps of the stage."""

    async def batch(step: int) -> Batch:
        return await _experience(work, iteration, step, version=step - 1)

    return Plan(iteration, "policy", work.spec.policy.steps, publish=True, batch=batch)


async def _in_turn(work: StageContext, opened: trainer_v1.Training, plan: Plan) -> None:
    """Each step on samples of the version that it trains."""

    async def after(result: trainer_v1.StepResult) -> None:
        await _update(work, result.weights)
        await free_old_versions(work, result.weights)

    await run_steps(work, opened, plan, after)


async def _overlapping(
    work: StageContext, opened: trainer_v1.Training, plan: Plan, done: int, in_force: types_v1.WeightsRef
) -> None:
    """Each step on samples of at most `max_staleness` versions before the one that it trains, made meanwhile."""
    staleness = work.spec.policy.max_staleness
    # Batches are drawn one after the other, so that each is as fresh as can be. Where weights change between two
    # tokens, the long responses of one need not hold up the next.
    in_flight = (await work.rollout.status()).updates_in_flight
    drawing = asyncio.Semaphore(1 + staleness if in_flight else 1)

    async def make(step: int, least: int) -> Batch:
        return await _experience(work, plan.iteration, step, min_version=least, drawing=drawing)

    async def put(weights: types_v1.WeightsRef) -> None:
        await _update(work, weights)

    overlap = Overlap(staleness, range(done + 1, plan.total + 1), in_force, make, put)

    async def after(result: trainer_v1.StepResult) -> None:
        await overlap.after(result.weights)
        await free_old_versions(work, result.weights, *overlap.in_use())

    async with overlap.open():
        await run_steps(work, opened, replace(plan, batch=overlap.batch), after)


async def _update(work: StageContext, weights: types_v1.WeightsRef) -> None:
    await work.rollout.update_weights(weights)


async def put_into_force(work: StageContext, opened: trainer_v1.Training) -> types_v1.WeightsRef:
    """The rollout engine serves the training's current version, and computes as it always did."""
    await check_same_engine(work)
    weights = opened.init
    if opened.version:
        weights = await work.client.trainer.publish(opened.training_id, lease_token=work.services.token("trainer"))
    await _update(work, weights)
    return weights


async def _experience(
    work: StageContext,
    iteration: int,
    step: int,
    *,
    version: int | None = None,
    min_version: int | None = None,
    drawing: AbstractAsyncContextManager[object] | None = None,
) -> Batch:
    """The scored samples of a step: recorded ones, or new ones, recorded before anybody learns from them. `drawing` is
    held while they are drawn."""
    name = experience_key(iteration, "policy", step)
    recorded = await work.ledger.read(name, trainer_v1.ScoredSample)
    if recorded is not None:
        return Batch(samples=recorded, metrics=_metrics(recorded))
    spec = work.spec.policy
    train = await facts.prompts_of(work, preference_v1.SPLIT_TRAIN)
    prompts = turn(
        train,
        lambda prompt: prompt.prompt_id,
        spec.prompts_per_step,
        step - 1,
        work.spec.seed,
        "policy",
        iteration,
    )
    async with drawing or nullcontext():
        began = time.monotonic()
        samples = await ask_samples(
            work,
            key(iteration, "policy", step).replace("/", "-"),
            prompts,
            n=spec.samples_per_prompt,
            version=version,
            min_version=min_version,
            seed_parts=("policy", iteration, step),
        )
    sampled = time.monotonic()
    scored = await score_samples(
        work, samples, {prompt.prompt_id: prompt for prompt in prompts}, reward_scorers(work, iteration)
    )
    experience = [trainer_v1.ScoredSample(sample=each.sample, score=each.score.value) for each in scored]
    await work.journal.record_all(name, trainer_v1.ScoredSample, experience)
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


def reward_scorers(work: StageContext, iteration: int) -> list[reward_v1.ScorerSpec]:
    """What the policy is rewarded by: the normalised reward model and the spec's extra scorers."""
    return [facts.reward_scorer(work, iteration), *work.spec.reward_model.extra_scorers]


def _metrics(experience: list[trainer_v1.ScoredSample]) -> dict[str, float]:
    """Mean score and length of the samples; the trainer's own figures of the same name take precedence."""
    samples: list[types_v1.Sample] = [each.sample for each in experience]
    ended = [sample.finish_reason == types_v1.FINISH_REASON_STOP for sample in samples]
    return {
        "score": sum(each.score for each in experience) / len(experience),
        "response_tokens": mean_tokens(samples),
        "eos_rate": sum(ended) / len(ended),
    }
