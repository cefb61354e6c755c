"""Measures a policy on held-out prompts: the same prompts with the same seeds in every iteration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from accord.controller import v1 as controller_v1
from accord.names import stage_name
from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.types import v1 as types_v1
from accord_controller.ledger import keys
from accord_controller.ledger.keys import key
from accord_controller.ledger.recorder import NewEvent
from accord_controller.stages.context import StageContext
from accord_controller.stages.sampling import gather_samples, mean_tokens
from accord_controller.stages.scoring import Scored, mean_score, score_samples
from accord_controller.stages.seeds import shuffled

SHOWN_SAMPLES = 8


@dataclass(frozen=True)
class Measured:
    """A policy's answers to the held-out prompts, and their part of the iteration's result."""

    samples: Sequence[types_v1.Sample]
    scored: Sequence[Scored]
    result: controller_v1.IterationResult


async def heldout_prompts(context: StageContext) -> list[preference_v1.Prompt]:
    """The prompts that every iteration is measured on."""
    heldout = await context.prompts_of(preference_v1.SPLIT_HELDOUT)
    chosen = shuffled(heldout, lambda prompt: prompt.prompt_id, context.spec.seed, "evaluate")
    return chosen[: context.spec.evaluate.prompts]


async def measure(
    context: StageContext, iteration: int, *, version: int, scorers: Sequence[reward_v1.ScorerSpec]
) -> Measured:
    """Generates answers to each held-out prompt with the active weights (`version`) and scores them.

    Nothing is scored without scorers, that is, before the first reward model in a run that has no scorers in its spec.
    """
    prompts = await heldout_prompts(context)
    samples = await gather_samples(
        context, iteration, "evaluate", prompts,
        n=context.spec.evaluate.samples_per_prompt, version=version, seed_parts=("evaluate",),
    )  # fmt: skip
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    scored = await score_samples(context, samples, by_id, scorers) if scorers else []
    result = controller_v1.IterationResult(iteration=iteration, response_tokens=mean_tokens(samples))
    scores = {(each.sample.request_id, each.sample.index): each.score.value for each in scored}
    if scored:
        result.heldout_score = mean_score(scored)
    first = {sample.prompt_id: sample for sample in reversed(samples)}
    for sample in [first[prompt.prompt_id] for prompt in prompts if prompt.prompt_id in first][:SHOWN_SAMPLES]:
        result.samples.add(
            prompt_id=sample.prompt_id,
            prompt=last_user_turn(by_id[sample.prompt_id]),
            response=sample.text,
            score=scores.get((sample.request_id, sample.index)),
            engine=sample.engine,
        )
    return Measured(samples, scored, result)


async def earlier_samples(context: StageContext, iteration: int) -> list[types_v1.Sample]:
    """The held-out answers recorded when `iteration` was measured."""
    samples: list[types_v1.Sample] = []
    number = 0
    while True:
        part = await context.ledger.read(key(iteration, "evaluate", "samples", number), types_v1.Sample)
        if part is None:
            return samples
        samples.extend(part)
        number += 1


async def finish_stage(
    context: StageContext,
    stage: controller_v1.Stage.ValueType,
    part: controller_v1.IterationResult,
    message: str = "",
    metrics: dict[str, float] | None = None,
) -> None:
    """Records a stage's part of the iteration's result, with its time and usage."""
    status = context.recorder.status
    name = stage_name(stage)
    costs = await _add_costs(context, name, part)
    status.step = status.total_steps
    await context.recorder.record(
        keys.result_key(status.iteration, stage),
        part,
        NewEvent("stage_finished", message or name, {**costs, **(metrics or {})}),
    )


async def finish_iteration(
    context: StageContext, stage: controller_v1.Stage.ValueType, part: controller_v1.IterationResult
) -> None:
    """Records the last stage of an iteration, the iteration's result and, if promoted, its model in one transaction."""
    recorder = context.recorder
    iteration = part.iteration
    costs = await _add_costs(context, stage_name(stage), part)
    whole = context.iteration_so_far(iteration)
    whole.MergeFrom(part)
    whole.seconds = sum(whole.stage_seconds.values())
    recorder.status.iterations.append(whole)
    recorder.status.step = recorder.status.total_steps
    model = None
    if whole.promoted:
        recorder.status.promoted.CopyFrom(whole.policy)
        model = controller_v1.Model(
            name=f"{context.run_id}-{iteration}", weights=whole.policy, run_id=context.run_id, iteration=iteration
        )
        if whole.HasField("heldout_score"):
            model.heldout_score = whole.heldout_score
        model.create_time.GetCurrentTime()
    metrics = {"seconds": whole.seconds, "response_tokens": whole.response_tokens, "promoted": float(whole.promoted)}
    for field in ("heldout_score", "kl_nats", "rm_accuracy"):
        if whole.HasField(field):
            metrics[field] = getattr(whole, field)
    await recorder.record_entries(
        [context.ledger.message_entry(keys.result_key(iteration, stage), part)],
        NewEvent("stage_finished", stage_name(stage), costs),
        NewEvent("iteration_finished", whole.gate_reason, metrics),
        model=model,
    )


async def _add_costs(context: StageContext, stage: str, part: controller_v1.IterationResult) -> dict[str, float]:
    """Adds the stage's time and usage to its result and returns them as metrics for its event."""
    await context.meter.read()
    used = context.recorder.stage_usage
    part.stage_seconds[stage] = context.recorder.stage_seconds()
    part.stage_usage[stage].CopyFrom(used)
    costs = {"seconds": part.stage_seconds[stage], "cpu_seconds": sum(used.cpu_seconds.values())}
    return {**costs, "gpu_seconds": used.gpu_seconds} if used.HasField("gpu_seconds") else costs


def last_user_turn(prompt: preference_v1.Prompt) -> str:
    """The user's last message."""
    return next((turn.content for turn in reversed(prompt.conversation.messages) if turn.role == "user"), "")
