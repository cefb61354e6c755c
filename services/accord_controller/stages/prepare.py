"""Prepare: pin the prompts and the base model, try everything that could fail hours later, and measure the base
model."""

from __future__ import annotations

import asyncio

from accord.controller import v1 as controller_v1
from accord.errors import FailedPrecondition, InvalidArgument
from accord.preference import v1 as preference_v1
from accord.trainer import v1 as trainer_v1
from accord_controller.clients.rollout_services import current_services
from accord_controller.ledger import keys
from accord_controller.spec import files
from accord_controller.spec.catalog import model_names
from accord_controller.stages import heldout
from accord_controller.stages.context import StageContext
from accord_controller.stages.prompts import import_feedback, pin_prompts


async def prepare(context: StageContext) -> None:
    """Runs the stage; its result is iteration 0."""
    await pin_prompts(context)
    await import_feedback(context)
    await _pin_models(context)
    async with context.leased("rollout", "trainer"):
        base = context.base()
        await context.rollout.update_weights(base)
        await _check_engine(context)
        await _try_trainings(context)
        measured = await heldout.measure(context, 0, version=0, scorers=context.spec.evaluate.scorers)
    result = measured.result
    result.promoted = True
    result.policy.CopyFrom(base)
    result.prompt_snapshot = context.ledger.need(keys.PROMPT_SNAPSHOT, preference_v1.Snapshot).digest
    if context.spec.policy.reference == "base":
        result.kl_nats = 0.0
    result.gate_reason = "the base model"
    await heldout.finish_iteration(context, controller_v1.STAGE_PREPARE, result)


async def _pin_models(context: StageContext) -> None:
    """Records the base models by digest."""
    if keys.REWARD_BASE in context.ledger:
        return
    names = model_names(context.spec)
    models = {name: model for name in names if (model := await context.store.get_model(name)) is not None}
    if missing := names - models.keys():
        raise FailedPrecondition(f"The model {sorted(missing)[0]} is no longer in the registry", reason="NO_MODEL")
    base = await asyncio.to_thread(files.weights_of, context.spec.model, models)
    reward = base
    if context.spec.reward_model.model != context.spec.model:
        reward = await asyncio.to_thread(files.weights_of, context.spec.reward_model.model, models)
    await context.recorder.record_entries(
        [context.ledger.message_entry(keys.BASE, base), context.ledger.message_entry(keys.REWARD_BASE, reward)]
    )


async def _check_engine(context: StageContext) -> None:
    """Checks that the engine and the algorithms are the requested ones, and records how the engine computes."""
    wanted, statuses = current_services(context.status).engine, await context.rollout.statuses()
    for address, status in statuses.items():
        if status.engine != wanted:
            raise FailedPrecondition(
                f"The rollout service at {address} runs the engine {status.engine}, but the run requests {wanted}. "
                f"Start it with --engine {wanted}, or set rollout.engine: {status.engine}",
                reason="OTHER_ENGINE",
            )
    status = next(iter(statuses.values()))
    algorithms = (await context.client.trainer.status()).algorithms
    for field, name in (
        ("reward_model", context.spec.reward_model.algorithm),
        ("policy", context.spec.policy.algorithm),
    ):
        if name not in algorithms:
            raise InvalidArgument.at(
                f"run.spec.{field}.algorithm", f"unknown algorithm {name!r}; available: {', '.join(algorithms)}"
            )
    if keys.ENGINE not in context.ledger:
        status.ClearField("lease")
        await context.recorder.record(keys.ENGINE, status)


async def _try_trainings(context: StageContext) -> None:
    """Opens both trainings with their options and deletes them again, so that a wrong option fails now and not in an
    hour."""
    if keys.TRAINER in context.ledger:
        return
    base, reward_base = context.base(), context.reward_base()
    reward = await _try(
        context,
        "run.spec.reward_model.options",
        trainer_v1.Training(
            training_id=f"{context.run_id}-trial-reward-model",
            algorithm=context.spec.reward_model.algorithm,
            init=reward_base,
            options=context.spec.reward_model.options,
        ),
    )
    _require_kind("reward_model", context.spec.reward_model.algorithm, reward, "preferences")
    policy = await _try(
        context,
        "run.spec.policy.options",
        trainer_v1.Training(
            training_id=f"{context.run_id}-trial-policy",
            algorithm=context.spec.policy.algorithm,
            init=base,
            options=context.spec.policy.options,
        ),
    )
    _require_kind("policy", context.spec.policy.algorithm, policy, "samples")
    if context.spec.policy.critic_from_reward_model and policy.tokenizer_fingerprint != reward.tokenizer_fingerprint:
        raise InvalidArgument.at(
            "run.spec.policy.critic_from_reward_model",
            "needs a reward model with the policy's tokenizer. Leave this out, or set reward_model.model to the run's "
            "model",
            reason="TOKENIZER_MISMATCH",
        )
    await context.recorder.record(keys.TRAINER, policy)


_INSTEAD = {
    "policy": "Use ppo, grpo, rloo, reinforce++ or dapo here, or train with it through the SDK (docs/algorithms.md) "
    "and start a run from the model that it publishes",
    "reward_model": "Use reward_model or reward_probe here",
}


def _require_kind(field: str, algorithm: str, opened: trainer_v1.Training, wanted: str) -> None:
    """InvalidArgument if the algorithm learns from a kind of data that the stage does not have. Trainers of earlier
    releases do not report the kind."""
    if opened.learns_from not in ("", wanted):
        raise InvalidArgument.at(
            f"run.spec.{field}.algorithm",
            f"{algorithm} cannot be the {field} algorithm of a run: it learns from {opened.learns_from}, and this "
            f"stage has {wanted}. {_INSTEAD[field]}",
        )


async def _try(context: StageContext, field: str, training: trainer_v1.Training) -> trainer_v1.Training:
    """The trainer's answer to opening a training, which is deleted again. InvalidArgument names `field`."""
    token = context.services.token("trainer")
    try:
        opened = await context.client.trainer.create_training(training, lease_token=token)
    except InvalidArgument as error:
        raise InvalidArgument.at(field, error.message, reason=error.reason) from error
    await context.client.trainer.delete_training(training.training_id, lease_token=token)
    return opened
