"""Every wrong spec is refused before anything starts, and the error names the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from accord.controller import v1 as controller_v1
from accord.errors import InvalidArgument
from accord_controller.settings import ControllerSettings
from accord_controller.spec.catalog import SpecCatalog
from accord_controller.spec.defaults import resolve
from accord_controller.spec.validation import check

# What is installed here, and no registered model.
CATALOG = SpecCatalog(ControllerSettings(), {})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spec") / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.fixture
def good(model: Path, tmp_path: Path) -> controller_v1.RunSpec:
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "hello"}) + "\n")
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n")
    spec = controller_v1.RunSpec(model=str(model))
    spec.prompts.files.append(str(tmp_path / "prompts.jsonl"))
    spec.feedback.simulated.scorers.add(name="length")
    return spec


def violations(spec: controller_v1.RunSpec, run_id: str = "demo") -> dict[str, str]:
    with pytest.raises(InvalidArgument) as caught:
        check(run_id, resolve(spec), CATALOG)
    return {violation.field.removeprefix("run.spec."): violation.description for violation in caught.value.violations}


def test_a_good_spec_passes_and_shows_its_defaults(good: controller_v1.RunSpec) -> None:
    full = resolve(good)
    check("demo", full, CATALOG)
    assert (full.iterations, full.feedback.prompts_per_iteration, full.feedback.completions_per_prompt) == (1, 128, 2)
    assert (full.feedback.simulated.annotators, full.feedback.simulated.noise) == (3, 0.1)
    assert (full.policy.algorithm, full.policy.steps, full.policy.reference) == ("ppo", 20, "base")
    assert (full.evaluate.prompts, full.evaluate.max_kl) == (64, 10.0)
    assert list(full.evaluate.scorers) == list(good.feedback.simulated.scorers)
    assert full.reward_model.model == full.model == Path(good.model).as_uri()
    assert resolve(full) == full


def test_zero_is_kept_where_it_means_something(good: controller_v1.RunSpec) -> None:
    good.evaluate.min_gain = 0.0
    good.rollout.temperature = 0.5
    full = resolve(good)
    assert full.rollout.temperature == 0.5
    good.rollout.temperature = 0.0
    assert "above 0" in violations(good)["rollout.temperature"]


Change = Callable[[controller_v1.RunSpec, Path], object]
CASES: list[tuple[str, str, Change]] = [
    ("model", "does not exist: ", lambda spec, at: setattr(spec, "model", str(at / "nowhere"))),
    ("model", "not a model folder", lambda spec, at: setattr(spec, "model", str(at / "pairs.jsonl"))),
    ("model", "no config.json", lambda spec, at: setattr(spec, "model", str(at))),
    ("model", "no model named gone is in the registry", lambda spec, at: setattr(spec, "model", "models/gone")),
    ("model", "is not a folder", lambda spec, at: setattr(spec, "model", "s3://bucket/model")),
    ("reward_model.model", "does not exist", lambda spec, at: setattr(spec.reward_model, "model", str(at / "x"))),
    ("iterations", "at least 1, not -1", lambda spec, at: setattr(spec, "iterations", -1)),
    ("prompts.files[1]", "no file ", lambda spec, at: spec.prompts.files.append(str(at / "x.jsonl"))),
    ("feedback", "exactly one", lambda spec, at: spec.feedback.ClearField("simulated")),
    ("feedback.simulated.scorers", "at least one", lambda spec, at: spec.feedback.simulated.ClearField("scorers")),
    (
        "feedback.simulated.scorers[1].name",
        "unknown scorer 'sentimant'; available: ",
        lambda spec, at: spec.feedback.simulated.scorers.add(name="sentimant"),
    ),
    ("feedback.simulated.noise", "above 0, not 0", lambda spec, at: setattr(spec.feedback.simulated, "noise", 0.0)),
    ("feedback.simulated.noise", "not nan", lambda spec, at: setattr(spec.feedback.simulated, "noise", float("nan"))),
    (
        "feedback.simulated.redundancy",
        "must be at most",
        lambda spec, at: setattr(spec.feedback.simulated, "redundancy", 4),
    ),
    ("feedback.people.threshold", "at most 1", lambda spec, at: setattr(spec.feedback.people, "threshold", 1.5)),
    (
        "feedback.people.min_agreement",
        "redundancy",
        lambda spec, at: setattr(spec.feedback.people, "min_agreement", 0.5),
    ),
    (
        "feedback.people.max_wait_seconds",
        "above 0",
        lambda spec, at: setattr(spec.feedback.people, "max_wait_seconds", 0),
    ),
    (
        "feedback.judges.judges[0].url",
        "http",
        lambda spec, at: spec.feedback.judges.judges.add(name="j", url="x:1", model="m"),
    ),
    (
        "feedback.judges.judges[0].policy",
        "models/",
        lambda spec, at: spec.feedback.judges.judges.add(policy="models/no"),
    ),
    (
        "feedback.judges.judges[0].key_variable",
        "ACCORD_JUDGE_",
        lambda spec, at: spec.feedback.judges.judges.add(url="http://x/v1", model="m", key_variable="AWS_SECRET_KEY"),
    ),
    ("feedback.selection", "must be `random`, ", lambda spec, at: setattr(spec.feedback, "selection", "best")),
    ("feedback.selection", "ensemble", lambda spec, at: setattr(spec.feedback, "selection", "disagreement")),
    ("feedback.selection_pool", "at least 128", lambda spec, at: setattr(spec.feedback, "selection_pool", 8)),
    ("reward_model.weighting", "reliability", lambda spec, at: setattr(spec.reward_model, "weighting", "some")),
    (
        "feedback.preferences.files[0]",
        "prompts, not preferences",
        lambda spec, at: spec.feedback.preferences.files.append(str(at / "prompts.jsonl")),
    ),
    (
        "feedback.completions_per_prompt",
        "at least 2",
        lambda spec, at: setattr(spec.feedback, "completions_per_prompt", 1),
    ),
    ("reward_model.algorithm", "unknown algorithm", lambda spec, at: setattr(spec.reward_model, "algorithm", "rm")),
    (
        "reward_model.extra_scorers[0].scale",
        "above 0",
        lambda spec, at: spec.reward_model.extra_scorers.add(name="length", scale=0.0),
    ),
    (
        "reward_model.extra_scorers[0].model_digest",
        "a loaded reward model",
        lambda spec, at: spec.reward_model.extra_scorers.add(name="model"),
    ),
    (
        "evaluate.scorers[0].name",
        "does not exist: ",
        lambda spec, at: spec.evaluate.scorers.add(name=f"python:{at}/reward.py:score"),
    ),
    (
        "policy.algorithm",
        "unknown algorithm 'grpoo'; available: ",
        lambda spec, at: setattr(spec.policy, "algorithm", "grpoo"),
    ),
    ("policy.steps", "at least 1, not -3", lambda spec, at: setattr(spec.policy, "steps", -3)),
    ("policy.reference", "`base` or `promoted`", lambda spec, at: setattr(spec.policy, "reference", "last")),
    ("policy.max_staleness", "at least 0, not -1", lambda spec, at: setattr(spec.policy, "max_staleness", -1)),
    (
        "policy.max_staleness",
        "must be 0 in a deterministic run, not 2",
        lambda spec, at: spec.MergeFrom(
            controller_v1.RunSpec(deterministic=True, policy=controller_v1.PolicySpec(max_staleness=2))
        ),
    ),
    ("evaluate.max_kl", "above 0", lambda spec, at: setattr(spec.evaluate, "max_kl", -1.0)),
    ("evaluate.min_gain", "finite", lambda spec, at: setattr(spec.evaluate, "min_gain", float("inf"))),
    ("rollout.engine", "unknown engine 'vlm'; available: ", lambda spec, at: setattr(spec.rollout, "engine", "vlm")),
    ("rollout.max_new_tokens", "at least 1", lambda spec, at: setattr(spec.rollout, "max_new_tokens", -1)),
    (
        "rollout.autoscale.max_replicas",
        "at least rollout.replicas, which is 1, not 0",
        lambda spec, at: spec.rollout.autoscale.SetInParent(),
    ),
    (
        "rollout.autoscale.idle_seconds",
        "at least 0, not -1.0",
        lambda spec, at: spec.rollout.autoscale.MergeFrom(
            controller_v1.RolloutAutoscale(max_replicas=2, idle_seconds=-1)
        ),
    ),
]


@pytest.mark.parametrize(
    ("field", "said", "change"), CASES, ids=[f"{field}-{n}" for n, (field, _, _) in enumerate(CASES)]
)
def test_what_is_wrong_is_named(
    good: controller_v1.RunSpec, tmp_path: Path, field: str, said: str, change: Change
) -> None:
    change(good, tmp_path)
    found = violations(good)
    assert list(found) == [field]
    assert said in found[field]


def test_a_truncated_line_is_named_with_file_and_number(good: controller_v1.RunSpec, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "fine"}\n{"prompt": "cut o')
    assert f"{path}:2: " in violations(good)["prompts.files[0]"]


def test_everything_wrong_is_said_at_once(good: controller_v1.RunSpec) -> None:
    good.policy.steps, good.rollout.engine = -1, "x"
    assert set(violations(good)) == {"policy.steps", "rollout.engine"}


@pytest.mark.parametrize("run_id", ["", "Demo", "a/b", "-a", "a-", "a" * 64, "../x"])
def test_a_run_needs_a_name_that_can_be_one(good: controller_v1.RunSpec, run_id: str) -> None:
    assert list(violations(good, run_id)) == ["run.run_id"]
