"""Run files: what is wrong is named before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import json_format

import accord
from accord import errors

RUN = """
apiVersion: accord.dev/v1
kind: Run
metadata: {name: demo}
spec:
  model: ./model
  iterations: 2
  seed: 7
  prompts: {files: [prompts.jsonl, /abs/more.jsonl], max_characters: 300}
  feedback:
    promptsPerIteration: 16
    simulated:
      scorers:
        - {name: sentiment, weight: 1}
        - {name: "python:./reward.py:score"}
  rewardModel: {options: {learning_rate: 1e-5, layers: [1, 2]}}
  policy: {steps: 4, checkpoint_every: 2}
  evaluate: {min_gain: 0}
"""


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "demo.yaml"
    path.parent.mkdir()
    path.write_text(RUN)
    return path


def test_a_run_file_in_either_spelling_becomes_a_run(run_file: Path) -> None:
    run = accord.load_run(run_file)
    assert run.run_id == "demo"
    assert (run.spec.iterations, run.spec.seed, run.spec.policy.checkpoint_every) == (2, 7, 2)
    assert run.spec.feedback.prompts_per_iteration == 16
    assert run.spec.evaluate.HasField("min_gain")
    assert not run.spec.evaluate.HasField("max_kl")
    options = json_format.MessageToDict(run.spec.reward_model.options)
    assert options == {"learning_rate": 1e-5, "layers": [1, 2]}


def test_data_is_relative_to_the_file_and_models_and_code_to_where_one_is(
    run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = accord.load_run(Path("runs/../runs/demo.yaml"))
    assert list(run.spec.prompts.files) == [str(run_file.parent / "prompts.jsonl"), "/abs/more.jsonl"]
    assert run.spec.model == str(tmp_path / "model")
    names = [scorer.name for scorer in run.spec.feedback.simulated.scorers]
    assert names == ["sentiment", f"python:{tmp_path / 'reward.py'}:score"]


@pytest.mark.parametrize("model", ["models/demo-1", "file:///somewhere/model"])
def test_registry_names_and_uris_stay_as_they_are(run_file: Path, model: str) -> None:
    run_file.write_text(RUN.replace("./model", model))
    assert accord.load_run(run_file).spec.model == model


def test_overrides(run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = accord.load_run(
        run_file,
        [
            "iterations=5",
            "spec.rewardModel.options.learning_rate=2e-4",
            "policy.options.ppo.clip=0.3",
            "feedback.simulated.scorers.0.weight=2.5",
            "prompts.files=[mine.jsonl]",
            "metadata.name=other",
            "model=here",
            "rollout.temperature=0.7",
        ],
    )
    assert run.run_id == "other"
    assert run.spec.iterations == 5
    assert run.spec.reward_model.options["learning_rate"] == 2e-4
    assert run.spec.policy.options["ppo"]["clip"] == 0.3
    assert run.spec.feedback.simulated.scorers[0].weight == 2.5
    assert list(run.spec.prompts.files) == [str(tmp_path / "mine.jsonl")]
    assert run.spec.model == str(tmp_path / "here")
    assert run.spec.rollout.temperature == 0.7


def test_maps_are_mappings(run_file: Path) -> None:
    resources = "{nvidia.com/gpu: '1', memory: 16Gi}"
    run_file.write_text(f"{RUN}  placement: {{trainer: {{nodeSelector: {{gpu: h100}}, resources: {resources}}}}}\n")
    placed = accord.load_run(run_file).spec.placement.trainer
    assert placed.node_selector == {"gpu": "h100"}
    assert placed.resources == {"nvidia.com/gpu": "1", "memory": "16Gi"}
    overrides = ["placement.trainer.resources.nvidia.com/gpu='2'", "placement.reward.nodeSelector={zone: a}"]
    placement = accord.load_run(run_file, overrides).spec.placement
    assert placement.trainer.resources == {"nvidia.com/gpu": "2", "memory": "16Gi"}
    assert placement.reward.node_selector == {"zone": "a"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[gpu]", "spec.placement.trainer.nodeSelector: must be a mapping, not a list"),
        ("{gpu: 1}", "spec.placement.trainer.nodeSelector.gpu: must be a text, not 1"),
    ],
)
def test_a_wrong_map_is_named(run_file: Path, value: str, message: str) -> None:
    run_file.write_text(f"{RUN}  placement: {{trainer: {{nodeSelector: {value}}}}}\n")
    with pytest.raises(errors.InvalidArgument) as raised:
        accord.load_run(run_file)
    assert message in str(raised.value)


def test_an_override_may_replace_one_choice_by_another(run_file: Path) -> None:
    run = accord.load_run(run_file, ["feedback.preferences={sources: [hh]}"])
    assert run.spec.feedback.WhichOneof("source") == "preferences"
    assert list(run.spec.feedback.preferences.sources) == ["hh"]
    run = accord.load_run(run_file, ["feedback.preferences.sources=[hh]"])
    assert run.spec.feedback.WhichOneof("source") == "preferences"


@pytest.mark.parametrize(
    ("old", "new", "field", "message"),
    [
        ("iterations", "iteratons", "spec.iteratons", "unknown key; did you mean `iterations`?"),
        ("max_characters", "length", "spec.prompts.length", "unknown key; available: "),
        ("weight: 1", "wieght: 1", "spec.feedback.simulated.scorers[0].wieght", "did you mean `weight`?"),
        ("iterations: 2", "iterations: many", "spec.iterations", "must be a whole number, not 'many'"),
        ("iterations: 2", "iterations: 2.5", "spec.iterations", "must be a whole number, not 2.5"),
        ("steps: 4", "steps: true", "spec.policy.steps", "must be a whole number, not True"),
        ("seed: 7", "seed: -1", "spec.seed", "must be a whole number of at least 0"),
        ("seed: 7", "seed:", "spec.seed", "has no value"),
        ("{min_gain: 0}", "yes", "spec.evaluate", "must be a mapping"),
        ("[prompts.jsonl, /abs/more.jsonl]", "prompts.jsonl", "spec.prompts.files", "must be a list"),
        ("simulated:", "preferences: {sources: [a]}\n    simulated:", "spec.feedback", "only one of"),
        ("kind: Run", "kind: Job", "kind", "must be Run, not 'Job'"),
        ("accord.dev/v1", "accord.dev/v2", "apiVersion", "must be accord.dev/v1"),
        ("{name: demo}", "{}", "metadata.name", "must be the run's name"),
        ("{name: demo}", "{name: demo, label: x}", "metadata.label", "unknown key"),
        ("seed: 7", "reward_model: {epochs: 2}", "spec", "is given twice"),
    ],
)
def test_what_is_wrong_is_named(run_file: Path, old: str, new: str, field: str, message: str) -> None:
    assert old in RUN
    run_file.write_text(RUN.replace(old, new, 1))
    with pytest.raises(errors.InvalidArgument) as raised:
        accord.load_run(run_file)
    assert str(raised.value).startswith(f"{run_file}: ")
    assert message in str(raised.value)
    assert raised.value.violations[0].field.startswith(field)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("iterations", "does not have the form key=value"),
        ("iteratons=3", "spec.iteratons: unknown key; did you mean `iterations`?"),
        ("spec.iterations=x", "spec.iterations: must be a whole number"),
        ("model.path=x", "model has no fields"),
        ("feedback.simulated.scorers.7.weight=1", "is not one of the 2 elements"),
        ("metadata.label=x", "metadata has only `name`"),
        ("spec=1", "name a field of the spec"),
    ],
)
def test_a_wrong_override_is_named(run_file: Path, override: str, message: str) -> None:
    with pytest.raises(errors.InvalidArgument) as raised:
        accord.load_run(run_file, [override])
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "line 1: not YAML"),
        ("a: 1\nb: 2\na: 3\n", "line 3: the key `a` is given twice"),
        ("- 1", "a run file must be a mapping"),
        ("", "a run file must be a mapping"),
        ("--- 1\n--- 2\n", "not YAML"),
    ],
)
def test_what_is_not_a_run_file_is_named_with_its_line(run_file: Path, text: str, message: str) -> None:
    run_file.write_text(text)
    with pytest.raises(errors.InvalidArgument) as raised:
        accord.load_run(run_file)
    assert message in str(raised.value)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound, match=r"nowhere\.yaml"):
        accord.load_run(tmp_path / "nowhere.yaml")
