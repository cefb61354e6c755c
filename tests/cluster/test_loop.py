"""A run on a real cluster, from nothing to a promoted policy, while its services are scaled, swapped and deleted."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from tests.support.deployed import NAMESPACE, Deployed, Object, condition, is_true, steady, tiny
from tests.support.engine_plugin import NAME as OTHER

import accord
import kube
from accord.controller import v1 as controller_v1
from accord_controller.operator import resource

pytestmark = [pytest.mark.system, pytest.mark.cluster, pytest.mark.timeout(2400)]
STEPS = int(os.environ.get("ACCORD_TEST_STEPS", "600"))


def test_a_run_is_finished_whatever_is_scaled_swapped_deleted_and_drained_meanwhile(deployed: Deployed) -> None:
    name = f"through-{os.getpid()}"  # a run cannot be repeated under its name where Accord stays deployed
    deployed.apply(tiny(name, policy=steady(steps=STEPS, promptsPerStep=8)))
    deployed.wait_run(name, "is accepted", lambda status: condition(status, "Accepted").get("status") == "True", 60)

    # While it collects: the operator and the console, and the service that stores the preferences.
    deployed.wait_run(
        name, "has its services", lambda status: status.get("stage") in ("collect", "reward_model", "policy")
    )
    deployed.replace(component="operator")
    deployed.replace(component="preference")
    deployed.replace(component="console")
    deployed.wait_run(
        name, "tunes the policy", lambda status: status.get("stage") == "policy" and status["step"] >= 1, 600
    )
    deployed.kubectl("get", "runs")

    # 1 -> 3 -> 1 rollout services.
    for replicas in (3, 1):
        deployed.kubectl("scale", f"run/{name}", f"--replicas={replicas}")
        scaled = deployed.wait_run(
            name, f"has {replicas} replicas", lambda status, n=replicas: status["replicas"] == n, 600
        )
        assert scaled["stage"] == "policy", "scaling costs the stage nothing"
        deployed.wait(
            f"{replicas} rollout pods", lambda n=replicas: len(deployed.ready(component="rollout", run=name)) == n, 120
        )
        deployed.kubectl("get", "runs,pods")
    edit = {"spec": {"rollout": {"engine": OTHER}}}
    deployed.kubectl("patch", f"run/{name}", "--type=merge", f"--patch={json.dumps(edit)}")
    deployed.wait_run(name, "has the other engine", lambda status: status["engine"] == OTHER, 600)
    deployed.wait("the old engine's pods are gone", lambda: not deployed.pods(run=name, engine="transformers"), 120)

    for component in ("rollout", "reward", "trainer"):
        deployed.replace(component=component, run=name)
    deployed.replace(component="controller")
    before = deployed.wait_run(name, "continues", lambda status: status["state"] == "Running")["step"]
    deployed.wait_run(
        name, "makes a step", lambda status: status["step"] > before or status["stage"] == "evaluate", 300
    )

    # All pods of Accord are evicted from the trainer's node at once.
    (trainer,) = deployed.wait("the trainer", lambda: deployed.ready(component="trainer", run=name))
    node = trainer["spec"]["nodeName"]
    selector = "--pod-selector=app.kubernetes.io/component"
    try:
        deployed.kubectl(
            "drain", node, selector, "--delete-emptydir-data", "--ignore-daemonsets", "--timeout=300s", timeout=330
        )
    finally:
        kube.kubectl("uncordon", node)

    ended = deployed.wait_run(name, "succeeds", lambda status: status["state"] == "Succeeded", 1200)
    assert condition(ended, "Complete")["status"] == "True"
    assert ended["results"][-1]["promoted"] is True
    assert ended["promoted"]["digest"]
    deployed.kubectl("get", "runs")
    deployed.kubectl("describe", f"run/{name}")
    deployed.wait("its pods are gone", lambda: not deployed.pods(run=name), 120)
    kinds = {event["reason"] for event in deployed.events(name)}
    assert kinds >= {"StageStarted", "Succeeded", "SwapShifted", "SwapDone"}
    assert is_true({"status": ended}, "ServicesReady")


async def test_kubectl_and_grpc_are_two_views_of_one_run(deployed: Deployed) -> None:
    name = "by-grpc"
    spec = tiny(name)["spec"]
    with kube.forwarded(NAMESPACE, "controller", 7000) as address:
        async with accord.Client(controller=address) as client:
            wanted = run_of(name, spec)
            await client.runs.create(wanted)
            shown = deployed.wait("its object", lambda: deployed.kubectl("get", "runs", "-o", "name").count(name))
            assert shown
            # Paused here, it is suspended there; resumed there, it continues here.
            await client.runs.pause(name)
            deployed.wait("it is suspended", lambda: deployed.run(name)["spec"].get("suspend") is True, 120)
            deployed.kubectl("patch", f"run/{name}", "--type=merge", '--patch={"spec": {"suspend": false}}')
            deployed.wait_run(name, "continues", lambda status: status["state"] == "Running", 120)
            # Deleted while the operator is away, it is cancelled when the operator is back.
            deployed.kubectl("scale", "deployment/operator", "--replicas=0")
            deployed.wait("the operator is gone", lambda: not deployed.pods(component="operator"))
            deployed.kubectl("delete", f"run/{name}")
            assert (await client.runs.get(name)).status.state != controller_v1.RUN_STATE_CANCELLED
            deployed.kubectl("scale", "deployment/operator", "--replicas=1")
            deployed.wait("the operator is back", lambda: deployed.ready(component="operator"))
            async with asyncio.timeout(120):
                while (await client.runs.get(name)).status.state != controller_v1.RUN_STATE_CANCELLED:  # noqa: ASYNC110
                    await asyncio.sleep(1)


def run_of(name: str, spec: Object) -> controller_v1.Run:
    """The same Run as a message, with paths of the volume."""
    return resource.run_of({"metadata": {"name": name}, "spec": spec}, Path("/data"))
