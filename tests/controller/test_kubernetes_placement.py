"""What a Run says of its pods gets into them, on top of the templates."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from tests.support.kustomize import documents, rendered

from accord.controller import v1 as controller_v1
from accord_controller.launchers import health
from accord_controller.launchers.kubernetes import placement, templates

pytestmark = pytest.mark.process

RUN: dict[str, Any] = {
    "spec": {
        "placement": {
            "queue": "team",
            "trainerRanks": 2,
            "trainer": {
                "resources": {"nvidia.com/gpu": "1", "memory": "16Gi"},
                "nodeSelector": {"gpu": "h100"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "priorityClass": "training",
            },
        }
    }
}


@pytest.fixture(scope="module")
def trainer() -> dict[str, Any]:
    """A run's trainer as the templates have it."""
    found = documents(rendered("overlays/local"))
    template = next(one for one in found if one["metadata"].get("labels", {}).get(templates.TEMPLATE) == "trainer")
    return templates.workload_of(template, templates.Workload("demo", "trainer"), owner=())


def test_resources_nodes_tolerations_and_priority_are_the_runs(trainer: dict[str, Any]) -> None:
    made = placement.placed(trainer, placement.of_run(RUN), "trainer", kueue=True)
    kubernetes_validate.validate(made, "1.37", strict=True)
    pod, before = (one["spec"]["template"]["spec"] for one in (made, trainer))
    resources = pod["containers"][0]["resources"]
    assert resources["requests"] == {**before["containers"][0]["resources"]["requests"], **resources["limits"]}
    assert resources["limits"].items() >= {"nvidia.com/gpu": "1", "memory": "16Gi"}.items()
    assert pod["nodeSelector"] == {"gpu": "h100"}
    assert pod["tolerations"][-1] == {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert pod["priorityClassName"] == "training"
    assert made["metadata"]["labels"][placement.QUEUE] == "team"


def test_without_kueue_no_queue_is_named_and_without_a_placement_nothing_changes(trainer: dict[str, Any]) -> None:
    made = placement.placed(trainer, placement.of_run(RUN), "trainer", kueue=False)
    assert placement.QUEUE not in made["metadata"]["labels"]
    for run in (None, {"spec": {}}):
        assert placement.placed(trainer, placement.of_run(run), "trainer", kueue=True) == trainer


def test_the_ranks_of_a_trainer_rendezvous_at_its_first_pod_and_only_that_must_be_ready(
    trainer: dict[str, Any],
) -> None:
    made = placement.placed(trainer, placement.of_run(RUN), "trainer", kueue=True)
    service = placement.rendezvous_service(made, {"a": "b"}, owner=())
    kubernetes_validate.validate(service, "1.37", strict=True)
    spec = made["spec"]
    assert (spec["replicas"], spec["podManagementPolicy"]) == (2, "Parallel")
    assert spec["serviceName"] == service["metadata"]["name"] == "demo-trainer-ranks"
    container = spec["template"]["spec"]["containers"][0]
    assert "livenessProbe" not in container
    assert "readinessProbe" in container
    assert "--master-addr demo-trainer-0.demo-trainer-ranks" in container["command"][2]


def test_the_command_of_the_ranks_brings_up_one_trainer_of_two_nodes(trainer: dict[str, Any], tmp_path: Path) -> None:
    """As the pods run it, on this machine: pod 0 serves on its port, pod 1 follows, and both end on SIGTERM."""
    made = placement.placed(trainer, placement.of_run(RUN), "trainer", kueue=True)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = made["spec"]["template"]["spec"]["containers"][0]["command"][2]
    command = command.replace("exec python ", f"exec {sys.executable} ")
    command = command.replace("demo-trainer-0.demo-trainer-ranks", "127.0.0.1").replace("29500", str(port))
    nodes = [
        subprocess.Popen(
            ["/bin/sh", "-c", command, "accord", "--state-dir", str(tmp_path), "--port", "0"],
            env={"HOSTNAME": f"demo-trainer-{number}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": "/tmp"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    try:
        assert nodes[0].stdout is not None
        line = nodes[0].stdout.readline()
        asyncio.run(health.wait_healthy("trainer", line.split()[-1], 60))
        for node in nodes:
            assert node.poll() is None
    finally:
        for node in nodes:
            node.terminate()
        for node in nodes:
            node.wait(60)


def test_the_definition_of_a_run_has_the_fields_that_are_read_here() -> None:
    parsed = placement.of_run(RUN)
    assert parsed.trainer_ranks == 2
    assert placement.ranks_of(parsed, "rollout") == 1
    assert placement.of_run({"spec": {"suspend": True}}) == controller_v1.PlacementSpec()
