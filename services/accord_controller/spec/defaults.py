"""Fills in the defaults of a spec, as run.proto documents them, and makes paths absolute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from accord.controller import v1 as controller_v1
from accord.reward import v1 as reward_v1
from accord_controller.spec import files

RANDOM = "random"
UNWEIGHTED = "none"


def resolve(spec: controller_v1.RunSpec) -> controller_v1.RunSpec:
    """A copy with every default of run.proto filled in; given values are kept."""
    full = controller_v1.RunSpec()
    full.CopyFrom(spec)
    full.iterations = full.iterations or 1
    feedback = full.feedback
    feedback.prompts_per_iteration = feedback.prompts_per_iteration or 128
    feedback.completions_per_prompt = feedback.completions_per_prompt or 2
    if feedback.HasField("simulated"):
        simulated = feedback.simulated
        simulated.annotators = simulated.annotators or 3
        simulated.redundancy = simulated.redundancy or 1
        if not simulated.HasField("noise"):
            simulated.noise = 0.1
    if feedback.HasField("people"):
        feedback.people.redundancy = feedback.people.redundancy or 1
        if not feedback.people.HasField("threshold"):
            feedback.people.threshold = 1.0
    if feedback.HasField("judges"):
        feedback.judges.redundancy = feedback.judges.redundancy or len(feedback.judges.judges)
    feedback.selection = feedback.selection or RANDOM
    feedback.selection_pool = feedback.selection_pool or 4 * feedback.prompts_per_iteration
    model = full.reward_model
    model.algorithm = model.algorithm or "reward_model"
    model.model = model.model or full.model
    model.epochs = model.epochs or 1
    model.batch_size = model.batch_size or 16
    model.weighting = model.weighting or UNWEIGHTED
    policy = full.policy
    policy.algorithm = policy.algorithm or "ppo"
    policy.steps = policy.steps or 20
    policy.prompts_per_step = policy.prompts_per_step or 8
    policy.samples_per_prompt = policy.samples_per_prompt or 4
    policy.reference = policy.reference or "base"
    policy.checkpoint_every = policy.checkpoint_every or 5
    evaluate = full.evaluate
    if not evaluate.scorers and feedback.HasField("simulated"):
        evaluate.scorers.extend(feedback.simulated.scorers)
    evaluate.prompts = evaluate.prompts or 64
    evaluate.samples_per_prompt = evaluate.samples_per_prompt or 1
    if not evaluate.HasField("min_gain"):
        evaluate.min_gain = 0.0
    if not evaluate.HasField("max_kl"):
        evaluate.max_kl = 10.0
    rollout = full.rollout
    rollout.engine = rollout.engine or "transformers"
    rollout.max_new_tokens = rollout.max_new_tokens or 32
    rollout.replicas = rollout.replicas or 1
    if rollout.HasField("autoscale"):
        rollout.autoscale.tokens_per_replica = rollout.autoscale.tokens_per_replica or 16384
        if not rollout.autoscale.HasField("idle_seconds"):
            rollout.autoscale.idle_seconds = 60.0
    if not rollout.HasField("temperature"):
        rollout.temperature = 1.0
    if full.HasField("placement"):
        full.placement.trainer_ranks = full.placement.trainer_ranks or 1
    _make_absolute(full)
    return full


def scorer_lists(spec: controller_v1.RunSpec) -> Iterable[tuple[str, Sequence[reward_v1.ScorerSpec]]]:
    """Every list of scorers in the spec, with its path."""
    if spec.feedback.HasField("simulated"):
        yield "run.spec.feedback.simulated.scorers", spec.feedback.simulated.scorers
    yield "run.spec.reward_model.extra_scorers", spec.reward_model.extra_scorers
    yield "run.spec.evaluate.scorers", spec.evaluate.scorers


def _make_absolute(spec: controller_v1.RunSpec) -> None:
    """Makes paths absolute, so that a run can be resumed from another folder."""
    for paths in (spec.prompts.files, spec.feedback.preferences.files if spec.feedback.HasField("preferences") else []):
        paths[:] = [files.absolute(path) for path in paths]
    spec.model = files.absolute_model(spec.model)
    spec.reward_model.model = files.absolute_model(spec.reward_model.model)
    for _, scorers in scorer_lists(spec):
        for scorer in scorers:
            scorer.name = files.absolute_scorer(scorer.name)
