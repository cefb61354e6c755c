"""What a Run reports on a real cluster while something that it needs is missing, and that it continues afterwards."""

from __future__ import annotations

import json

import pytest
from tests.support.deployed import Deployed, Object, condition, tiny

import kube

pytestmark = [pytest.mark.system, pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"iterations": 0}, "spec.iterations"),
        ({"model": ""}, "spec.model"),
        ({"policy": {"steps": "many"}}, "spec.policy.steps"),
        ({"feedback": {}}, "spec.feedback"),
        ({"rollout": {"replicas": 0}}, "spec.rollout.replicas"),
    ],
)
def test_an_invalid_run_is_refused_at_apply_with_the_field_named(
    deployed: Deployed, changes: Object, field: str
) -> None:
    said = deployed.refused("apply", "-f", "-", text=json.dumps(tiny("wrong", **changes)))
    assert field in said


def test_what_only_the_controller_can_know_is_a_condition_and_an_event(deployed: Deployed) -> None:
    deployed.apply(tiny("no-model", model="/data/models/none"))
    status = deployed.wait("it is refused", lambda: refused(deployed, "no-model"), 60)
    assert "/data/models/none" in status["message"]
    assert any("/data/models/none" in event["message"] for event in deployed.events("no-model"))
    deployed.kubectl("delete", "run/no-model")


def refused(deployed: Deployed, name: str) -> Object | None:
    status: Object = deployed.run(name).get("status", {})
    return status if status.get("state") == "Refused" else None


GPU = {"op": "replace", "path": "/spec/template/spec/containers/0/resources",
       "value": {"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"nvidia.com/gpu": "1"}}}  # fmt: skip
IMAGE = {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "accord/reward:none"}
SECRET = {"op": "add", "path": "/spec/template/spec/containers/0/envFrom",
          "value": [{"secretRef": {"name": "no-such-secret"}}]}  # fmt: skip


@pytest.mark.parametrize(
    ("patch", "reason", "says"),
    [
        (IMAGE, "ImageMissing", "accord/reward:none"),
        (GPU, "Unschedulable", "nvidia.com/gpu"),
        (SECRET, "ConfigMissing", "no-such-secret"),
    ],
    ids=["image", "gpu", "secret"],
)
def test_what_keeps_a_pod_from_running_is_reported_with_what_to_do_and_the_run_continues_when_it_is_done(
    deployed: Deployed, patch: Object, reason: str, says: str
) -> None:
    name = f"lacks-{reason.lower()}"
    template = kube.objects("accord-test", "deployment/reward")[0]["spec"]["template"]["spec"]["containers"][0]
    deployed.kubectl("patch", "deployment/reward", "--type=json", f"--patch={json.dumps([patch])}")
    try:
        deployed.apply(tiny(name))
        lacks(deployed, name, reason, says)
    finally:
        key = patch["path"].rpartition("/")[2]
        back = (
            {"op": "replace", "path": patch["path"], "value": template[key]}
            if key in template
            else {"op": "remove", "path": patch["path"]}
        )
        deployed.kubectl("patch", "deployment/reward", "--type=json", f"--patch={json.dumps([back])}")
    # The run continues by itself.
    deployed.wait_run(name, "continues", has_services, 300)
    deployed.kubectl("delete", f"run/{name}")


def test_a_full_quota_is_reported_with_what_to_do(deployed: Deployed) -> None:
    pods = len(deployed.pods())
    deployed.kubectl("create", "quota", "small", f"--hard=pods={pods}")
    try:
        deployed.apply(tiny("no-room"))
        lacks(deployed, "no-room", "QuotaFull", "kubectl get resourcequota")
    finally:
        deployed.kubectl("delete", "quota/small")
    deployed.wait_run(
        "no-room", "continues", lambda status: condition(status, "ServicesReady").get("status") == "True", 300
    )
    deployed.kubectl("delete", "run/no-room")


def has_services(status: Object) -> bool:
    return bool(condition(status, "ServicesReady").get("status") == "True")


def lacks(deployed: Deployed, name: str, reason: str, says: str) -> None:
    """Waits until the condition names the reason; the event does too."""
    status = deployed.wait_run(
        name, f"says {reason}", lambda status: condition(status, "ServicesReady").get("reason") == reason, 180
    )
    assert says in condition(status, "ServicesReady")["message"]
    deployed.kubectl("get", f"run/{name}", "-o", "jsonpath={.status.conditions}")
    warnings = [event["message"] for event in deployed.events(name) if event["type"] == "Warning"]
    assert any(says in message for message in warnings), warnings
