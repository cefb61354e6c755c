"""A trainer of several pods: they rendezvous, train together, and survive the loss of one."""

from __future__ import annotations

import os

import pytest
from tests.support.deployed import Deployed, condition, steady, tiny

pytestmark = [pytest.mark.system, pytest.mark.cluster, pytest.mark.timeout(1200)]


def test_two_trainer_pods_make_a_run_together_also_when_one_is_lost(deployed: Deployed) -> None:
    name = f"ranks-{os.getpid()}"
    deployed.apply(tiny(name, policy=steady(steps=300), placement={"trainerRanks": 2}))
    deployed.wait_run(
        name, "tunes the policy", lambda status: status.get("stage") == "policy" and status["step"] >= 2, 600
    )
    deployed.kubectl("get", "runs,pods")
    pods = deployed.pods(component="trainer", run=name)
    assert [pod["status"]["phase"] for pod in pods] == ["Running", "Running"]
    # The second pod does not serve and is never ready, yet no step is possible without it.
    (lost,) = [pod["metadata"] for pod in pods if pod["metadata"]["name"] == f"{name}-trainer-1"]
    deployed.kubectl("delete", "pod", lost["name"], "--wait=false")
    before = deployed.run(name)["status"]["step"]
    deployed.wait_run(name, "makes steps again", lambda status: status["step"] > before + 10, 600)
    assert lost["uid"] not in [pod["metadata"]["uid"] for pod in deployed.pods(component="trainer", run=name)]
    ended = deployed.wait_run(name, "succeeds", lambda status: status["state"] == "Succeeded", 900)
    assert condition(ended, "Complete")["status"] == "True"
    deployed.wait("its pods are gone", lambda: not deployed.pods(run=name), 120)
