"""What a run's ledger can be asked: the facts that one stage records and another needs."""

from __future__ import annotations

from collections.abc import Mapping

from accord.controller import v1 as controller_v1
from accord.names import stage_name
from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_controller.ledger.ledger import Ledger
from accord_controller.runs.reconcile import STAGES
from accord_controller.stages.context import StageContext, key

BASE = key(0, "prepare", "base")
REWARD_BASE = key(0, "prepare", "reward_model_base")
PROMPTS = key(0, "prepare", "prompts")
PROMPT_SNAPSHOT = key(0, "prepare", "prompt_snapshot")
FEEDBACK = key(0, "prepare", "imported_feedback")
ENGINE = key(0, "prepare", "engine")
TRAINER = key(0, "prepare", "trainer")


def result_key(iteration: int, stage: controller_v1.Stage.ValueType) -> str:
    """Where a stage records its part of the iteration's result when it is finished."""
    return key(iteration, stage_name(stage), "result")


def finished_stages(ledger: Ledger, iterations: int) -> Mapping[int, frozenset[controller_v1.Stage.ValueType]]:
    """By iteration, the stages that recorded a result."""
    found = {
        iteration: frozenset(stage for stage in STAGES if result_key(iteration, stage) in ledger)
        for iteration in range(1, iterations + 1)
    }
    prepared = result_key(0, controller_v1.STAGE_PREPARE) in ledger
    found[0] = frozenset({controller_v1.STAGE_PREPARE} if prepared else ())
    return found


def iteration_so_far(ledger: Ledger, iteration: int) -> controller_v1.IterationResult:
    """The parts that the finished stages of an iteration recorded, merged."""
    whole = controller_v1.IterationResult(iteration=iteration)
    for stage in (controller_v1.STAGE_PREPARE, *STAGES):
        part = ledger.get(result_key(iteration, stage), controller_v1.IterationResult)
        if part is not None:
            whole.MergeFrom(part)
    return whole


def first_services(spec: controller_v1.RunSpec) -> controller_v1.RolloutServices:
    """What draws a run's samples when it begins."""
    services = controller_v1.RolloutServices(engine=spec.rollout.engine, replicas=spec.rollout.replicas)
    if spec.rollout.HasField("engine_options"):
        services.engine_options.CopyFrom(spec.rollout.engine_options)
    return services


def services_of(status: controller_v1.RunStatus) -> controller_v1.RolloutServices:
    """What draws a run's samples now."""
    return status.rollout if status.HasField("rollout") else first_services(status.resolved_spec)


def base(work: StageContext) -> types_v1.WeightsRef:
    """The run's base model."""
    return work.ledger.need(BASE, types_v1.WeightsRef)


def compute_dtype(work: StageContext) -> str:
    """What the trainer found to be fastest when the run began: measured once, so that every training has the same."""
    return work.ledger.need(TRAINER, trainer_v1.Training).compute_dtype


def promoted(work: StageContext) -> types_v1.WeightsRef:
    """The policy in force, as version 0 of what starts from it."""
    ref = types_v1.WeightsRef()
    ref.CopyFrom(work.journal.status.promoted)
    ref.version = 0
    ref.ClearField("base_version")
    return ref


def promoted_iteration(work: StageContext) -> int:
    """The iteration that made the policy in force."""
    return max(result.iteration for result in work.journal.status.iterations if result.promoted)


def reward_model(work: StageContext, iteration: int) -> types_v1.WeightsRef:
    """The reward model of an iteration."""
    part = work.ledger.need(result_key(iteration, controller_v1.STAGE_REWARD_MODEL), controller_v1.IterationResult)
    return part.reward_model


def reward_scorer(work: StageContext, iteration: int) -> reward_v1.ScorerSpec:
    """The iteration's reward model as a scorer, normalised to mean 0 and variance 1 on answers of the base policy."""
    return work.ledger.need(key(iteration, "reward_model", "scorer"), reward_v1.ScorerSpec)


def known_scorers(work: StageContext, iteration: int) -> list[reward_v1.ScorerSpec]:
    """What answers are measured by: the spec's scorers, else the iteration's reward model."""
    return list(work.spec.evaluate.scorers) or [reward_scorer(work, iteration)]


async def prompts(work: StageContext) -> dict[str, preference_v1.Prompt]:
    """The run's prompts by id, as pinned."""
    found = await work.ledger.read(PROMPTS, preference_v1.Prompt)
    return {prompt.prompt_id: prompt for prompt in found or ()}


async def prompts_of(work: StageContext, split: preference_v1.Split.ValueType) -> list[preference_v1.Prompt]:
    """The run's prompts on one side of the split."""
    return [prompt for prompt in (await prompts(work)).values() if prompt.split == split]
