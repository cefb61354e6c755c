"""Prepare: prompts and base model pinned, everything tried that could turn out wrong hours later, base measured."""

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
        raise FailedPrecondition(f"there is no model {sorted(missing)[0]} in the registry any more", reason="NO_MODEL")
    base = await asyncio.to_thread(files.weights_of, context.spec.model, models)
    reward = base
    if context.spec.reward_model.model != context.spec.model:
        reward = await asyncio.to_thread(files.weights_of, context.spec.reward_model.model, models)
    await context.recorder.record_entries(
        [context.ledger.message_entry(keys.BASE, base), context.ledger.message_entry(keys.REWARD_BASE, reward)]
    )


async def _check_engine(context: StageContext) -> None:
    """The engine and the algorithms are the ones asked for. Records what the engine computes with."""
    wanted, said = current_services(context.status).engine, await context.rollout.statuses()
    for address, status in said.items():
        if status.engine != wanted:
            raise FailedPrecondition(
                f"the rollout service at {address} runs the engine {status.engine}, the run asks for {wanted}; start "
                f"it with --engine {wanted}, or set rollout.engine",
                reason="OTHER_ENGINE",
            )
    status = next(iter(said.values()))
    algorithms = (await context.client.trainer.status()).algorithms
    for field, name in (
        ("reward_model", context.spec.reward_model.algorithm),
        ("policy", context.spec.policy.algorithm),
    ):
        if name not in algorithms:
            raise InvalidArgument.at(
                f"run.spec.{field}.algorithm", f"unknown algorithm {name!r}; the trainer has: {', '.join(algorithms)}"
            )
    if keys.ENGINE not in context.ledger:
        status.ClearField("lease")
        await context.recorder.record(keys.ENGINE, status)


async def _try_trainings(context: StageContext) -> None:
    """Opens both trainings with their options and closes them again: a wrong option is known now, not in an hour."""
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
            "the reward model's base has another tokenizer than the policy; leave this out, or set reward_model.model "
            "to the run's model",
            reason="TOKENIZER_MISMATCH",
        )
    await context.recorder.record(keys.TRAINER, policy)


def _require_kind(field: str, algorithm: str, opened: trainer_v1.Training, wanted: str) -> None:
    """InvalidArgument where the stage has something else to give than its algorithm learns from. A trainer that does
    not say is believed."""
    if opened.learns_from not in ("", wanted):
        raise InvalidArgument.at(
            f"run.spec.{field}.algorithm",
            f"{algorithm} learns from {opened.learns_from}, and this stage gives {wanted}; train with it through the "
            "SDK (docs/algorithms.md), and start the run from what it publishes",
        )


async def _try(context: StageContext, field: str, training: trainer_v1.Training) -> trainer_v1.Training:
    """The training as the trainer opened it; it is deleted again. InvalidArgument names `field`."""
    token = context.services.token("trainer")
    try:
        opened = await context.client.trainer.create_training(training, lease_token=token)
    except InvalidArgument as error:
        raise InvalidArgument.at(field, error.message, reason=error.reason) from error
    await context.client.trainer.delete_training(training.training_id, lease_token=token)
    return opened
