"""Validates a resolved spec: finds every problem that is detectable before the run starts, and names its field."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from accord.controller import v1 as controller_v1
from accord.errors import FieldViolation, InvalidArgument
from accord.reward import v1 as reward_v1
from accord.rules.check import MUST_BE_SET, rule_of, violations
from accord_controller.spec import files
from accord_controller.spec.catalog import SpecCatalog
from accord_controller.spec.defaults import scorer_lists

RELIABILITY = "reliability"
BY_ENSEMBLE = ("disagreement", "information")  # these selections need an ensemble of reward models


def check(run_id: str, spec: controller_v1.RunSpec, catalog: SpecCatalog) -> None:
    """Raises InvalidArgument with a violation for each problem of a resolved spec."""
    _refuse(
        [
            *_check_name(run_id),
            *_check_limits(spec),
            *_check_combinations(spec),
            *_check_names(spec, catalog),
            *files.check_models(spec, catalog.models),
            *files.check_files(spec),
        ]
    )


def check_numbers(spec: controller_v1.RunSpec) -> None:
    """The same for numbers only, which an edit can make invalid."""
    _refuse([*_check_limits(spec), *_check_combinations(spec)])


def _refuse(problems: Sequence[FieldViolation]) -> None:
    if problems:
        raise InvalidArgument(
            "; ".join(f"{problem.field}: {problem.description}" for problem in problems),
            reason="INVALID_SPEC",
            violations=problems,
        )


def _check_name(run_id: str) -> Iterable[FieldViolation]:
    rule = rule_of(controller_v1.Run.DESCRIPTOR.fields_by_name["run_id"])
    if rule is not None and (problem := rule.problem(run_id)):
        yield FieldViolation("run.run_id", problem)


def _check_limits(spec: controller_v1.RunSpec) -> Iterable[FieldViolation]:
    """Checks the limits of single fields, which the contract states. Required fields are set, because the edge has
    checked them."""
    default = list(spec.evaluate.scorers) == list(spec.feedback.simulated.scorers)
    for violation in violations(spec):
        checked = violation.description in MUST_BE_SET or (default and violation.field.startswith("evaluate.scorers"))
        if not checked:
            yield _wrong(violation.field, violation.description)


def _check_combinations(spec: controller_v1.RunSpec) -> Iterable[FieldViolation]:
    """Checks constraints between several fields."""
    feedback, policy = spec.feedback, spec.policy
    if feedback.HasField("simulated"):
        simulated = feedback.simulated
        if simulated.redundancy > max(simulated.annotators, 1):
            yield _wrong(
                "feedback.simulated.redundancy",
                f"must be at most feedback.simulated.annotators, which is {simulated.annotators}, not "
                f"{simulated.redundancy}",
            )
    if feedback.people.HasField("min_agreement") and feedback.people.redundancy < 2:
        yield _wrong(
            "feedback.people.min_agreement", "needs a redundancy of at least 2, because agreement takes 2 annotators"
        )
    if feedback.HasField("judges") and feedback.judges.redundancy > max(1, len(feedback.judges.judges)):
        yield _wrong(
            "feedback.judges.redundancy",
            f"must be at most the number of judges, which is {len(feedback.judges.judges)}, not "
            f"{feedback.judges.redundancy}",
        )
    if feedback.selection_pool < feedback.prompts_per_iteration:
        yield _wrong(
            "feedback.selection_pool",
            f"must be at least {feedback.prompts_per_iteration}, not {feedback.selection_pool}",
        )
    if spec.deterministic and policy.max_staleness > 0:
        yield _wrong(
            "policy.max_staleness",
            f"must be 0 in a deterministic run, not {policy.max_staleness}: otherwise the version that generates a "
            "sample depends on how long generation and training take",
        )
    if spec.deterministic and spec.rollout.replicas > 1:
        yield _wrong("rollout.replicas", f"must be 1 in a deterministic run, not {spec.rollout.replicas}")
    if spec.rollout.HasField("autoscale"):
        yield from _check_autoscale(spec)


def _check_autoscale(spec: controller_v1.RunSpec) -> Iterable[FieldViolation]:
    most, field = spec.rollout.autoscale.max_replicas, "rollout.autoscale.max_replicas"
    if most < spec.rollout.replicas:
        yield _wrong(field, f"must be at least rollout.replicas, which is {spec.rollout.replicas}, not {most}")
    elif spec.deterministic and most > 1:
        yield _wrong(field, f"must be 1 in a deterministic run, not {most}")


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
    if selection in BY_ENSEMBLE and spec.reward_model.options.fields["ensemble"].number_value < 2:
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


def _wrong(field: str, description: str) -> FieldViolation:
    return FieldViolation(f"run.spec.{field}", description)
