"""A trainer of several pods: they meet, learn together, and survive the loss of one."""

from __future__ import annotations

import os

import pytest
from tests.support.deployed import Deployed, condition, tiny

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


def test_two_trainer_pods_make_a_run_together_also_when_one_is_lost(deployed: Deployed) -> None:
    name = f"ranks-{os.getpid()}"
    policy = {**tiny(name)["spec"]["policy"], "steps": 60}
    policy["options"] = {"learning_rate": 1e-6, "warmup_updates": 1}
    deployed.apply(tiny(name, policy=policy, placement={"trainerRanks": 2}))
    deployed.wait("two trainer pods", lambda: len(deployed.ready(component="trainer", run=name)) == 2, 300)
    deployed.wait_run(
        name, "tunes the policy", lambda status: status.get("stage") == "policy" and status["step"] >= 2, 600
    )
    deployed.kubectl("get", "runs,pods")
    # Not the pod that serves: a step waits for the ranks that it lost.
    deployed.kubectl("delete", "pod", f"{name}-trainer-1", "--wait=false")
    ended = deployed.wait_run(name, "succeeds", lambda status: status["state"] == "Succeeded", 900)
    assert condition(ended, "Complete")["status"] == "True"
    deployed.wait("its pods are gone", lambda: not deployed.pods(run=name), 120)
