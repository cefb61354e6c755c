"""Prepare: prompts and base model pinned, everything tried that could turn out wrong hours later, base measured."""

from __future__ import annotations

import asyncio

from accord.controller import v1 as controller_v1
from accord.errors import FailedPrecondition, InvalidArgument
from accord.preference import v1 as preference_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_controller.spec import files, validation
from accord_controller.stages import facts, heldout
from accord_controller.stages.context import StageContext
from accord_controller.stages.prompts import import_feedback, pin_prompts


async def prepare(work: StageContext) -> None:
    """Runs the stage; its result is iteration 0."""
    await pin_prompts(work)
    await import_feedback(work)
    await _pin_models(work)
    async with work.leased("rollout", "trainer"):
        base = facts.base(work)
        await work.rollout.update_weights(base)
        await _check_engine(work)
        await _try_trainings(work)
        measured = await heldout.measure(work, 0, version=0, scorers=work.spec.evaluate.scorers)
    result = measured.result
    result.promoted = True
    result.policy.CopyFrom(base)
    result.prompt_snapshot = work.ledger.need(facts.PROMPT_SNAPSHOT, preference_v1.Snapshot).digest
    if work.spec.policy.reference == "base":
        result.kl_nats = 0.0
    result.gate_reason = "the base model"
    await heldout.finish_iteration(work, controller_v1.STAGE_PREPARE, result)


async def _pin_models(work: StageContext) -> None:
    """Records the base models by digest."""
    if facts.REWARD_BASE in work.ledger:
        return
    names = validation.model_names(work.spec)
    models = {name: model for name in names if (model := await work.store.get_model(name)) is not None}
    if missing := names - models.keys():
        raise FailedPrecondition(f"there is no model {sorted(missing)[0]} in the registry any more", reason="NO_MODEL")
    base = await asyncio.to_thread(files.weights_of, work.spec.model, models)
    reward = base
    if work.spec.reward_model.model != work.spec.model:
        reward = await asyncio.to_thread(files.weights_of, work.spec.reward_model.model, models)
    await work.journal.record_entries(
        [work.ledger.message_entry(facts.BASE, base), work.ledger.message_entry(facts.REWARD_BASE, reward)]
    )


async def _check_engine(work: StageContext) -> None:
    """The engine and the algorithms are the ones asked for. Records what the engine computes with."""
    wanted, said = facts.services_of(work.status).engine, await work.rollout.statuses()
    for address, status in said.items():
        if status.engine != wanted:
            raise FailedPrecondition(
                f"the rollout service at {address} runs the engine {status.engine}, the run asks for {wanted}; start "
                f"it with --engine {wanted}, or set rollout.engine",
                reason="OTHER_ENGINE",
            )
    status = next(iter(said.values()))
    algorithms = (await work.client.trainer.status()).algorithms
    for field, name in (("reward_model", work.spec.reward_model.algorithm), ("policy", work.spec.policy.algorithm)):
        if name not in algorithms:
            raise InvalidArgument.at(
                f"run.spec.{field}.algorithm", f"unknown algorithm {name!r}; the trainer has: {', '.join(algorithms)}"
            )
    if facts.ENGINE not in work.ledger:
        status.ClearField("lease")
        await work.journal.record(facts.ENGINE, status)


async def _try_trainings(work: StageContext) -> None:
    """Opens both trainings with their options and closes them again: a wrong option is known now, not in an hour."""
    if facts.TRAINER in work.ledger:
        return
    base, reward_base = facts.base(work), work.ledger.need(facts.REWARD_BASE, types_v1.WeightsRef)
    reward = await _try(
        work,
        "run.spec.reward_model.options",
        trainer_v1.Training(
            training_id=f"{work.run_id}-trial-reward-model",
            algorithm=work.spec.reward_model.algorithm,
            init=reward_base,
            options=work.spec.reward_model.options,
        ),
    )
    _require_kind("reward_model", work.spec.reward_model.algorithm, reward, "preferences")
    policy = await _try(
        work,
        "run.spec.policy.options",
        trainer_v1.Training(
            training_id=f"{work.run_id}-trial-policy",
            algorithm=work.spec.policy.algorithm,
            init=base,
            options=work.spec.policy.options,
        ),
    )
    _require_kind("policy", work.spec.policy.algorithm, policy, "samples")
    if work.spec.policy.critic_from_reward_model and policy.tokenizer_fingerprint != reward.tokenizer_fingerprint:
        raise InvalidArgument.at(
            "run.spec.policy.critic_from_reward_model",
            "the reward model's base has another tokenizer than the policy; leave this out, or set reward_model.model "
            "to the run's model",
            reason="TOKENIZER_MISMATCH",
        )
    await work.journal.record(facts.TRAINER, policy)


def _require_kind(field: str, algorithm: str, opened: trainer_v1.Training, wanted: str) -> None:
    """InvalidArgument where the stage has something else to give than its algorithm learns from. A trainer that does
    not say is believed."""
    if opened.learns_from not in ("", wanted):
        raise InvalidArgument.at(
            f"run.spec.{field}.algorithm",
            f"{algorithm} learns from {opened.learns_from}, and this stage gives {wanted}; train with it through the "
            "SDK (docs/algorithms.md), and start the run from what it publishes",
        )


async def _try(work: StageContext, field: str, training: trainer_v1.Training) -> trainer_v1.Training:
    """The training as the trainer opened it; it is deleted again. InvalidArgument names `field`."""
    token = work.services.token("trainer")
    try:
        opened = await work.client.trainer.create_training(training, lease_token=token)
    except InvalidArgument as error:
        raise InvalidArgument.at(field, error.message, reason=error.reason) from error
    await work.client.trainer.delete_training(training.training_id, lease_token=token)
    return opened
