"""The custom resource definition of Run: what `kubectl apply` takes and refuses, without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from accord.controller import v1 as controller_v1
from accord_controller.operator import resource, status

ROOT = Path(__file__).resolve().parents[2]
DEFINITION = yaml.safe_load((ROOT / "k8s/crds/runs.accord.dev.yaml").read_text())
SCHEMA = DEFINITION["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC: dict[str, Any] = {
    "model": "/data/models/tiny",
    "prompts": {"files": ["prompts.jsonl"]},
    "feedback": {"simulated": {"scorers": [{"name": "length"}]}},
}


def run(**changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "accord.dev/v1",
        "kind": "Run",
        "metadata": {"name": "tiny", "namespace": "accord", "uid": "u", "generation": 1},
        "spec": {**SPEC, **changes},
    }


def refused_at(body: dict[str, Any]) -> str:
    """The path of what the schema refuses; empty where it takes everything."""
    # As Kubernetes reads it: `exclusiveMinimum` is a boolean, as in this draft and in OpenAPI 3.0.
    errors = list(jsonschema.Draft4Validator(SCHEMA).iter_errors(body))
    return ".".join(str(part) for part in errors[0].absolute_path) if errors else ""


def test_the_run_file_of_the_demo_is_a_custom_resource_as_it_is() -> None:
    assert refused_at(yaml.safe_load((ROOT / "examples/demo.yaml").read_text())) == ""


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"iterations": 0}, "spec.iterations"),
        ({"iterations": "two"}, "spec.iterations"),
        ({"policy": {"steps": -1}}, "spec.policy.steps"),
        ({"model": ""}, "spec.model"),
        ({"feedback": {}}, "spec.feedback"),
        ({"feedback": {"people": {}, "simulated": {"scorers": [{"name": "length"}]}}}, "spec.feedback"),
        ({"rollout": {"maxNewTokens": 0}}, "spec.rollout.maxNewTokens"),
        ({"rollout": {"temperature": 0}}, "spec.rollout.temperature"),
        ({"feedback": {"people": {"threshold": 1.5}}}, "spec.feedback.people.threshold"),
        ({"policy": {"reference": "latest"}}, "spec.policy.reference"),
        ({"suspend": "yes"}, "spec.suspend"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(changes: dict[str, Any], path: str) -> None:
    assert refused_at(run(**changes)) == path


def test_a_missing_model_is_refused() -> None:
    body = run()
    del body["spec"]["model"]
    assert refused_at(body) == "spec"


def test_every_field_of_the_contract_is_there_with_its_comment() -> None:
    properties = SCHEMA["properties"]["spec"]["properties"]
    names = {field.json_name for field in controller_v1.RunSpec.DESCRIPTOR.fields}
    assert names | {"suspend"} == properties.keys()
    assert all(properties[name].get("description") for name in names)


def test_columns_show_stage_iteration_step_reward_kl_and_age() -> None:
    columns = {one["name"] for one in DEFINITION["spec"]["versions"][0]["additionalPrinterColumns"]}
    assert columns >= {"Stage", "Iteration", "Step", "Reward", "KL", "Age"}


def test_the_resource_asks_for_the_run_that_the_file_asks_for() -> None:
    wanted = resource.run_of(run(iterations=2, rollout={"maxNewTokens": 7}, suspend=True), Path("/data"))
    assert wanted.run_id == "tiny"
    assert wanted.spec.iterations == 2
    assert wanted.spec.rollout.max_new_tokens == 7
    assert list(wanted.spec.prompts.files) == ["/data/prompts.jsonl"]
    relative = resource.run_of(run(model="models-of-mine/tiny"), Path("/data"))
    assert relative.spec.model == "/data/models-of-mine/tiny"


def test_a_run_that_was_started_over_grpc_has_an_object_that_asks_for_that_very_run() -> None:
    wanted = resource.run_of(
        run(seed=2**40, feedback={"people": {"minJudgements": 3, "redundancy": 2}}, rollout={"engine": "vllm"}),
        Path("/data"),
    )
    shown = resource.object_of(wanted)
    assert refused_at(shown) == ""
    assert (shown["spec"]["seed"], shown["spec"]["feedback"]["people"]["minJudgements"]) == (2**40, 3)
    assert resource.run_of(shown, Path("/elsewhere")).spec == wanted.spec
    assert not resource.is_suspended(shown)
    wanted.status.state = controller_v1.RUN_STATE_PAUSED
    assert resource.is_suspended(resource.object_of(wanted)), "a client paused it"
    wanted.status.interrupted = True
    assert not resource.is_suspended(resource.object_of(wanted)), "it continues when the controller is back"


def test_a_rewritten_object_has_the_rollout_services_of_the_run() -> None:
    before = run(rollout={"engine": "vllm", "replicas": 3, "engineOptions": {"a": 1}, "maxNewTokens": 7})
    edited = resource.run_of(run(rollout={"engine": "transformers", "maxNewTokens": 7}), Path("/data"))
    assert resource.edits_of(edited) == {"rollout": {"engine": "transformers", "replicas": None, "engineOptions": None}}
    # As the API server merges it.
    merged = {**before["spec"]["rollout"], **resource.edits_of(edited)["rollout"]}
    before["spec"]["rollout"] = {key: value for key, value in merged.items() if value is not None}
    assert resource.differences(resource.run_of(before, Path("/data")).spec, edited.spec) == []


def test_a_refused_engine_is_a_condition_until_another_one_serves() -> None:
    current = controller_v1.RunStatus(state=controller_v1.RUN_STATE_RUNNING)
    current.rollout.engine = "transformers"
    swap = current.swaps.add(number=1, state=controller_v1.SWAP_STATE_REFUSED, reason="OTHER_TOKENIZER", message="no")
    swap.services.engine = "vllm"
    accepted = [one for one in status.of_state(current) if one["type"] == status.ACCEPTED]
    assert [(one["status"], one["reason"]) for one in accepted] == [("False", "OtherTokenizer")]
    assert "`transformers` is still serving. `vllm` was refused: no" in accepted[0]["message"]
    swap.state = controller_v1.SWAP_STATE_DONE
    assert [one["status"] for one in status.of_state(current) if one["type"] == status.ACCEPTED] == ["True"]


def test_runs_are_scaled_as_anything_else_is() -> None:
    scale = DEFINITION["spec"]["versions"][0]["subresources"]["scale"]
    assert scale["specReplicasPath"] == ".spec.rollout.replicas"
    shown = status.status_of(controller_v1.Run(run_id="tiny"))
    assert shown["selector"] == "accord.dev/run=tiny,app.kubernetes.io/component=rollout"
    # How many there are, also where autoscaling brought more than were asked for.
    grown = controller_v1.RunStatus(rollout=controller_v1.RolloutServices(engine="e", replicas=1), serving_replicas=3)
    assert status.status_of(controller_v1.Run(run_id="tiny", status=grown))["replicas"] == 3


def test_what_was_changed_is_named_as_in_the_file() -> None:
    before = resource.run_of(run(), Path("/data")).spec
    after = resource.run_of(run(policy={"steps": 9}, feedback={"people": {}}), Path("/data")).spec
    assert resource.differences(before, before) == []
    assert resource.differences(before, after) == [
        "spec.feedback.simulated",
        "spec.feedback.people",
        "spec.policy",
    ]


def test_the_status_that_is_written_is_one_that_the_definition_takes() -> None:
    shown = controller_v1.Run(run_id="tiny")
    shown.status.state = controller_v1.RUN_STATE_RUNNING
    shown.status.stage, shown.status.iteration, shown.status.step = controller_v1.STAGE_POLICY, 1, 2
    shown.status.total_steps = 5
    shown.status.iterations.add(iteration=0, promoted=True, heldout_score=0.25, gate_reason="the base model")
    shown.status.promoted.uri, shown.status.promoted.digest = "file:///data/x", "d" * 64
    event = controller_v1.RunEvent(kind="step", metrics={"reward": 0.5, "kl_k1": 0.01, "loss": 3.0})
    conditions = status.merged([], [*status.of_event(event), *status.of_state(shown.status)], generation=1)
    written = {**status.status_of(shown), **status.figures_of(dict(event.metrics)), "conditions": conditions}
    assert refused_at({**run(), "status": written}) == ""
    known = SCHEMA["properties"]["status"]["properties"].keys()
    assert written.keys() <= known
    assert (written["stage"], written["progress"], written["reward"], written["kl"]) == ("policy", "2/5", 0.5, 0.01)


def test_a_condition_names_what_is_missing_until_the_run_continues() -> None:
    waiting = controller_v1.RunEvent(
        kind="waiting", message="waiting: the image x of pod y is not available: ... Push it [IMAGE_MISSING]"
    )
    first = status.merged([], status.of_event(waiting), generation=1)
    assert [(one["type"], one["status"], one["reason"]) for one in first] == [
        ("ServicesReady", "False", "ImageMissing")
    ]
    retry = controller_v1.RunEvent(kind="retry", message=f"{waiting.message}; retrying in 0.5 s")
    assert [one["reason"] for one in status.of_event(retry)] == ["ImageMissing"]
    after = status.merged(first, status.of_event(controller_v1.RunEvent(kind="step")), generation=1)
    assert [(one["type"], one["status"]) for one in after] == [("ServicesReady", "True")]
