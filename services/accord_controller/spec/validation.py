"""Checks of a resolved spec: everything that can be found wrong before the run starts, named by field."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from accord.controller import v1 as controller_v1
from accord.errors import FieldViolation, InvalidArgument
from accord.reward import v1 as reward_v1
from accord_controller.spec import files
from accord_controller.spec.catalog import SpecCatalog
from accord_controller.spec.defaults import RANDOM, UNWEIGHTED, scorer_lists

RELIABILITY = "reliability"
SELECTIONS = (RANDOM, "disagreement", "information")
WEIGHTINGS = (UNWEIGHTED, RELIABILITY)
# The least value of each number of a resolved spec, by path. The custom resource's schema has the same limits.
LEAST: Mapping[str, int] = {
    "iterations": 1,
    "prompts.max_characters": 0,
    "feedback.prompts_per_iteration": 2,
    "feedback.completions_per_prompt": 2,
    "reward_model.epochs": 1,
    "reward_model.batch_size": 1,
    "policy.steps": 1,
    "policy.prompts_per_step": 1,
    "policy.samples_per_prompt": 1,
    "policy.checkpoint_every": 1,
    "policy.max_staleness": 0,
    "evaluate.prompts": 1,
    "evaluate.samples_per_prompt": 1,
    "rollout.max_new_tokens": 1,
    "rollout.replicas": 1,
    "rollout.autoscale.max_replicas": 1,
    "rollout.autoscale.tokens_per_replica": 1,
    "placement.trainer_ranks": 1,
    "feedback.simulated.annotators": 1,
    "feedback.simulated.redundancy": 1,
    "feedback.people.redundancy": 1,
    "feedback.people.min_judgements": 0,
    "feedback.judges.redundancy": 1,
}
RUN_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def check(run_id: str, spec: controller_v1.RunSpec, catalog: SpecCatalog) -> None:
    """Raises InvalidArgument with a violation for each problem of a resolved spec."""
    _refuse(
        [
            *_check_name(run_id),
            *_check_numbers(spec),
            *_check_names(spec, catalog),
            *files.check_models(spec, catalog.models),
            *files.check_files(spec),
        ]
    )


def check_numbers(spec: controller_v1.RunSpec) -> None:
    """The same for numbers alone, which an edit can make wrong."""
    _refuse(list(_check_numbers(spec)))


def _refuse(problems: Sequence[FieldViolation]) -> None:
    if problems:
        raise InvalidArgument(
            "; ".join(f"{problem.field}: {problem.description}" for problem in problems),
            reason="INVALID_SPEC",
            violations=problems,
        )


def _check_name(run_id: str) -> Iterable[FieldViolation]:
    if not RUN_ID.fullmatch(run_id):
        yield FieldViolation(
            "run.run_id",
            f"{run_id!r} is not a valid name: use up to 63 lower-case letters, digits and inner `-`, like demo-2",
        )


def _check_numbers(spec: controller_v1.RunSpec) -> Iterable[FieldViolation]:
    feedback, policy, evaluate = spec.feedback, spec.policy, spec.evaluate
    if feedback.HasField("simulated"):
        simulated = feedback.simulated
        if simulated.redundancy > max(simulated.annotators, 1):
            yield _wrong(
                "feedback.simulated.redundancy",
                f"must be at most feedback.simulated.annotators, which is {simulated.annotators}, not "
                f"{simulated.redundancy}",
            )
        if not (math.isfinite(simulated.noise) and simulated.noise > 0):
            yield _wrong("feedback.simulated.noise", f"must be a number above 0, not {simulated.noise}")
    if feedback.HasField("people"):
        yield from _check_people(feedback.people)
        if not 0 < feedback.people.threshold <= 1:
            yield _wrong("feedback.people.threshold", f"must be above 0 and at most 1, not {feedback.people.threshold}")
    if feedback.HasField("judges") and feedback.judges.redundancy > max(1, len(feedback.judges.judges)):
        yield _wrong(
            "feedback.judges.redundancy",
            f"must be at most the number of judges, which is {len(feedback.judges.judges)}, not "
            f"{feedback.judges.redundancy}",
        )
    for field, least in {**LEAST, "feedback.selection_pool": feedback.prompts_per_iteration}.items():
        value = _number_at(spec, field)
        if value is not None and value < least:
            yield _wrong(field, f"must be at least {least}, not {value}")
    if spec.reward_model.weighting not in WEIGHTINGS:
        yield _wrong("reward_model.weighting", f"must be `none` or `reliability`, not {spec.reward_model.weighting!r}")
    if spec.deterministic and policy.max_staleness > 0:
        yield _wrong(
            "policy.max_staleness",
            f"must be 0 in a deterministic run, not {policy.max_staleness}: otherwise the version that makes a sample "
            "depends on how long generation and training take",
        )
    if spec.deterministic and spec.rollout.replicas > 1:
        yield _wrong("rollout.replicas", f"must be 1 in a deterministic run, not {spec.rollout.replicas}")
    if spec.rollout.HasField("autoscale"):
        yield from _check_autoscale(spec)
    if policy.reference not in ("base", "promoted"):
        yield _wrong("policy.reference", f"must be `base` or `promoted`, not {policy.reference!r}")
    if not (math.isfinite(spec.rollout.temperature) and spec.rollout.temperature > 0):
        yield _wrong("rollout.temperature", f"must be a number above 0, not {spec.rollout.temperature}")
    if not math.isfinite(evaluate.min_gain):
        yield _wrong("evaluate.min_gain", f"must be a finite number, not {evaluate.min_gain}")
    if not evaluate.max_kl > 0:
        yield _wrong("evaluate.max_kl", f"must be above 0, not {evaluate.max_kl}")


def _check_autoscale(spec: controller_v1.RunSpec) -> Iterable[FieldViolation]:
    scale, at = spec.rollout.autoscale, "rollout.autoscale"
    if scale.max_replicas < spec.rollout.replicas:
        yield _wrong(
            f"{at}.max_replicas",
            f"must be at least rollout.replicas, which is {spec.rollout.replicas}, not {scale.max_replicas}",
        )
    elif spec.deterministic and scale.max_replicas > 1:
        yield _wrong(f"{at}.max_replicas", f"must be 1 in a deterministic run, not {scale.max_replicas}")
    if not (math.isfinite(scale.idle_seconds) and scale.idle_seconds >= 0):
        yield _wrong(f"{at}.idle_seconds", f"must be a number of at least 0, not {scale.idle_seconds}")


def _number_at(spec: controller_v1.RunSpec, path: str) -> int | None:
    """The number at a path; None where a message on the path is not set."""
    value: Any = spec
    for name in path.split("."):
        field = value.DESCRIPTOR.fields_by_name[name]
        if field.message_type is not None and not value.HasField(name):
            return None
        value = getattr(value, name)
    return int(value)


def _check_people(people: controller_v1.HumanAnnotators) -> Iterable[FieldViolation]:
    if people.HasField("min_agreement"):
        if not -1 < people.min_agreement <= 1:
            yield _wrong(
                "feedback.people.min_agreement", f"must be an alpha above -1 and at most 1, not {people.min_agreement}"
            )
        if people.redundancy < 2:
            yield _wrong(
                "feedback.people.min_agreement", "needs a redundancy of at least 2: agreement takes two annotators"
            )
    if people.HasField("max_wait_seconds") and not people.max_wait_seconds > 0:
        yield _wrong("feedback.people.max_wait_seconds", f"must be above 0, not {people.max_wait_seconds}")


# The prefix of the controller's environment variables that hold the API keys of judges.
JUDGE_KEYS = "ACCORD_JUDGE_"


def _check_judges(judges: controller_v1.ModelJudges, catalog: SpecCatalog) -> Iterable[FieldViolation]:
    names: set[str] = set()
    for index, judge in enumerate(judges.judges):
        path = f"feedback.judges.judges[{index}]"
        if judge.name in names:
            yield _wrong(f"{path}.name", f"another judge is also named {judge.name!r}")
        names.add(judge.name)
        source = judge.WhichOneof("source")
        if source is None:
            yield _wrong(path, "needs exactly one of url, policy")
        elif source == "policy":
            name = judge.policy.removeprefix(files.REGISTRY)
            if not judge.policy.startswith(files.REGISTRY) or name not in catalog.models:
                yield _wrong(f"{path}.policy", f"must be a registered models/<name>, not {judge.policy!r}")
        else:
            if not judge.url.startswith(("http://", "https://")):
                yield _wrong(f"{path}.url", f"must begin with http:// or https://, not {judge.url!r}")
            if not judge.model:
                yield _wrong(f"{path}.model", "required with a url: the model's name at the endpoint")
            # Otherwise a run could send any secret of the controller to any host.
            if judge.key_variable and not judge.key_variable.startswith(JUDGE_KEYS):
                yield _wrong(f"{path}.key_variable", f"must begin with {JUDGE_KEYS}, not {judge.key_variable!r}")


def _check_selection(spec: controller_v1.RunSpec) -> Iterable[FieldViolation]:
    selection = spec.feedback.selection
    if selection not in SELECTIONS:
        yield _wrong("feedback.selection", f"must be one of {', '.join(SELECTIONS)}, not {selection!r}")
    elif selection != SELECTIONS[0] and spec.reward_model.options.fields["ensemble"].number_value < 2:
        yield _wrong("feedback.selection", f"{selection!r} needs reward_model.options.ensemble of at least 2")


def _check_names(spec: controller_v1.RunSpec, catalog: SpecCatalog) -> Iterable[FieldViolation]:
    if spec.feedback.WhichOneof("source") is None:
        yield _wrong("feedback", "needs exactly one of simulated, people, judges, preferences")
    yield from _check_judges(spec.feedback.judges, catalog)
    yield from _check_selection(spec)
    for field, group, name in (
        ("rollout.engine", "accord.engines", spec.rollout.engine),
        ("reward_model.algorithm", "accord.algorithms", spec.reward_model.algorithm),
        ("policy.algorithm", "accord.algorithms", spec.policy.algorithm),
    ):
        names = catalog.names(group)
        if names is not None and name not in names:
            kind = group.removeprefix("accord.").removesuffix("s")
            yield _wrong(field, f"unknown {kind} {name!r}; available: {', '.join(names) or 'none'}")
    if spec.feedback.HasField("simulated") and not spec.feedback.simulated.scorers:
        yield _wrong("feedback.simulated.scorers", "needs at least one scorer for the annotators to judge by")
    scorers = catalog.names("accord.scorers")
    for path, listed in scorer_lists(spec):
        if path == "run.spec.evaluate.scorers" and list(listed) == list(spec.feedback.simulated.scorers):
            continue  # the default, already checked
        for index, scorer in enumerate(listed):
            yield from _check_scorer(f"{path}[{index}]", scorer, scorers)


def _check_scorer(path: str, scorer: reward_v1.ScorerSpec, names: Sequence[str] | None) -> Iterable[FieldViolation]:
    if scorer.name.startswith(files.PYTHON):
        yield from files.check_python_scorer(f"{path}.name", scorer.name)
    elif names is not None and scorer.name not in names:
        yield FieldViolation(
            f"{path}.name",
            f"unknown scorer {scorer.name!r}; available: {', '.join(names) or 'none'}, or python:./file.py:function",
        )
    if scorer.name == "model" and not scorer.model_digest:
        yield FieldViolation(
            f"{path}.model_digest", "required with the scorer `model`: the digest of a loaded reward model"
        )
    for field in ("weight", "shift", "scale"):
        value = getattr(scorer, field)
        if scorer.HasField(field) and not (math.isfinite(value) and (field != "scale" or value > 0)):
            least = " above 0" if field == "scale" else ""
            yield FieldViolation(f"{path}.{field}", f"must be a finite number{least}, not {value}")


def _wrong(field: str, description: str) -> FieldViolation:
    return FieldViolation(f"run.spec.{field}", description)
