"""The cluster's launcher without a cluster: what it makes of templates, and what it says of pods that do not run."""

from __future__ import annotations

import copy
from typing import Any

import kubernetes_validate
import pytest
from tests.support.kustomize import documents, rendered

from accord_controller.launchers.kubernetes import pod_diagnosis, templates

OWNER = templates.owner_of(
    {"apiVersion": "accord.dev/v1", "kind": "Run", "metadata": {"name": "demo", "uid": "1234"}, "spec": {}}
)


@pytest.fixture(scope="module")
def deployed() -> dict[str, Any]:
    """The deployment's templates, by name."""
    found = documents(rendered("overlays/local"))
    return {one["metadata"]["name"]: one for one in found if templates.TEMPLATE in one["metadata"].get("labels", {})}


@pytest.mark.parametrize("name", ["rollout-transformers", "reward", "trainer"])
def test_a_workload_is_valid_and_belongs_to_its_run_alone(deployed: dict[str, Any], name: str) -> None:
    template = deployed[name]
    before = copy.deepcopy(template)
    engine = template["metadata"]["labels"].get(templates.ENGINE, "")
    one_of = {"engine": engine, "set": templates.FIRST, "number": 2} if engine else {}
    workload = templates.Workload("demo", template["metadata"]["labels"][templates.TEMPLATE], **one_of)
    made = templates.workload_of(template, workload, owner=OWNER)
    service = templates.service_of(template, workload, owner=OWNER)
    assert template == before
    for one in (made, service):
        kubernetes_validate.validate(one, "1.37", strict=True)
        assert one["metadata"]["ownerReferences"][0]["uid"] == "1234"
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert made["metadata"]["name"] == service["metadata"]["name"] == (f"demo-{name}-2" if engine else f"demo-{name}")
    assert made["spec"]["replicas"] == 1
    assert made["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    # Not a template itself, and not what the shared Service sends calls to.
    assert templates.TEMPLATE not in made["metadata"]["labels"]
    assert templates.SHARED not in labels


def test_two_runs_share_no_state_folder(deployed: dict[str, Any]) -> None:
    folders = set()
    for run_id in ("one", "two"):
        made = templates.workload_of(deployed["trainer"], templates.Workload(run_id, "trainer"), owner=())
        environment = made["spec"]["template"]["spec"]["containers"][0]["env"]
        folders.add(next(one["value"] for one in environment if one["name"] == "ACCORD_TRAINER_STATE_DIR"))
    assert folders == {"/data/trainer/one", "/data/trainer/two"}


def test_replicas_of_a_run_and_of_its_swaps_are_distinct_and_have_their_engine_s_options(
    deployed: dict[str, Any],
) -> None:
    sets = [templates.set_of(""), templates.set_of("rollout.demo.2"), templates.set_of("rollout.demo.3")]
    made = [
        templates.workload_of(
            deployed["rollout-transformers"],
            templates.Workload("demo", "rollout", "transformers", which, number, '{"a": 1}'),
            owner=(),
        )
        for which in sets
        for number in (1, 2)
    ]
    assert len({one["metadata"]["name"] for one in made}) == 6
    assert len({tuple(sorted(one["spec"]["selector"]["matchLabels"].items())) for one in made}) == 6
    for one in made:
        environment = {
            each["name"]: each.get("value") for each in one["spec"]["template"]["spec"]["containers"][0]["env"]
        }
        assert environment["ACCORD_ROLLOUT_ENGINE_OPTIONS"] == '{"a": 1}'


def test_long_names_of_runs_stay_different_and_within_what_kubernetes_takes() -> None:
    names = {templates.object_name("r" * 60 + tail, "rollout", "transformers") for tail in ("aaa", "bbb")}
    assert len(names) == 2
    assert all(len(name) <= 61 and name.endswith("-rollout-transformers") for name in names)


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "demo-trainer-0", "uid": "p"}, "status": {"phase": "Pending", **status}}


def waiting(reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return pod(containerStatuses=[{"image": "accord/x:1", "state": state}])


def unscheduled(message: str) -> dict[str, Any]:
    return pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}])


def event(reason: str, message: str, kind: str = "Pod") -> dict[str, Any]:
    return {"reason": reason, "message": message, "involvedObject": {"kind": kind, "name": "demo", "uid": "p"}}


@pytest.mark.parametrize(
    ("found", "events", "reason", "says"),
    [
        ([waiting("ErrImagePull", "no such image")], [], "IMAGE_MISSING", "accord/x:1"),
        ([waiting("ErrImageNeverPull", "not present")], [], "IMAGE_MISSING", "Push it"),
        ([waiting("CreateContainerConfigError", 'secret "key" not found')], [], "CONFIG_MISSING", 'secret "key"'),
        ([waiting("CrashLoopBackOff", "back-off 10s")], [], pod_diagnosis.CRASHING, "keeps crashing"),
        ([unscheduled("no GPU.")], [], "UNSCHEDULABLE", "no GPU"),
        ([pod()], [event("FailedMount", 'secret "tls" not found')], "CONFIG_MISSING", 'secret "tls"'),
        ([], [event("FailedCreate", "exceeded quota: small", "ReplicaSet")], "QUOTA_FULL", "kubectl get resourcequota"),
        ([], [event("FailedCreate", "forbidden: by policy", "StatefulSet")], "PODS_REFUSED", "by policy"),
    ],
)  # fmt: skip
def test_what_keeps_a_pod_from_running_is_named_with_what_to_do(
    found: list[dict[str, Any]], events: list[dict[str, Any]], reason: str, says: str
) -> None:
    problem = pod_diagnosis.find_problem(found, events)
    assert problem is not None
    assert problem.reason == reason
    assert says in problem.message


def test_a_pod_that_is_starting_is_no_problem() -> None:
    assert pod_diagnosis.find_problem([waiting("ContainerCreating", "")], []) is None
    # An old event of a pod that has been made since.
    assert pod_diagnosis.find_problem([pod(phase="Running")], [event("FailedCreate", "exceeded quota")]) is None
    assert pod_diagnosis.find_problem([pod(phase="Running")], [event("FailedMount", "was late")]) is None


def test_a_pod_is_ready_until_it_is_being_deleted() -> None:
    ready = pod(conditions=[{"type": "Ready", "status": "True"}])
    assert pod_diagnosis.is_ready(ready)
    ready["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not pod_diagnosis.is_ready(ready)
