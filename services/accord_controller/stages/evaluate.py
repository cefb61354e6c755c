"""Evaluate: the candidate answers held-out prompts, and the gate promotes it or keeps the active policy."""

from __future__ import annotations

import math

from accord.controller import v1 as controller_v1
from accord.trainer import v1 as trainer_v1
from accord_controller.stages import policy
from accord_controller.stages.context import StageContext
from accord_controller.stages.heldout import Measured, earlier_samples, finish_iteration, measure
from accord_controller.stages.scoring import mean_score, score_samples
from accord_controller.stages.steps import catch_up, open_training


async def evaluate(context: StageContext, iteration: int) -> None:
    """Runs the stage; its result ends the iteration."""
    scorers = context.evaluation_scorers(iteration)
    await context.client.reward.load_model(context.reward_model(iteration))
    async with context.leased("rollout", "trainer"):
        opened = await open_training(context, policy.training(context, iteration))
        await catch_up(context, opened, policy.make_plan(context, iteration))
        opened = await context.client.trainer.training(opened.training_id)
        await policy.activate(context, opened)
        measured = await measure(context, iteration, version=opened.version, scorers=scorers)
        kl = await _kl(context, opened.training_id, measured)
    part = measured.result
    part.kl_nats = kl
    part.promoted, part.gate_reason = decide(
        part.heldout_score, await _score_to_beat(context, iteration), kl, context.spec.evaluate
    )
    await finish_iteration(context, controller_v1.STAGE_EVALUATE, part)


def decide(score: float, to_beat: float, kl: float, spec: controller_v1.EvaluateSpec) -> tuple[bool, str]:
    """Whether the candidate becomes the active policy, and why. Numbers that are not finite never pass."""
    wanted = to_beat + spec.min_gain
    if not (math.isfinite(score) and math.isfinite(kl)):
        return False, f"kept the old policy: score {score}, KL {kl} are not finite"
    if score < wanted:
        return False, f"kept the old policy: score {score:.4f} is below {wanted:.4f}"
    if kl > spec.max_kl:
        return False, f"kept the old policy: KL {kl:.2f} nats per response is above {spec.max_kl:g}"
    return True, f"promoted: score {score:.4f} against {to_beat:.4f}, KL {kl:.2f} nats per response"


async def _kl(context: StageContext, training_id: str, measured: Measured) -> float:
    """KL from candidate to reference on the candidate's held-out answers, in nats per response.

    The estimator is k3, r - 1 - log r with r = reference / policy (Schulman, "Approximating KL divergence", 2020):
    unbiased like k1, with less variance, and never below 0 on the few answers of a gate.
    """
    experience = [trainer_v1.ScoredSample(sample=each.sample, score=each.score.value) for each in measured.scored]
    put = await context.client.trainer.put_experience(
        training_id, samples=experience, lease_token=context.services.token("trainer")
    )
    metrics = await context.client.trainer.evaluate(training_id, put.batch_id)
    return metrics["kl_k3"]


async def _score_to_beat(context: StageContext, iteration: int) -> float:
    """The active policy's score from the same scorers: the recorded score, or, if the scorer is this iteration's reward
    model, a new score of the recorded answers."""
    of = context.promoted_iteration()
    if context.spec.evaluate.scorers:
        return next(result.heldout_score for result in context.recorder.status.iterations if result.iteration == of)
    samples = await earlier_samples(context, of)
    return mean_score(
        await score_samples(context, samples, await context.prompts(), context.evaluation_scorers(iteration))
    )
