"""Rollout pods of a run follow its backlog, without a metrics server."""

from __future__ import annotations

import os

import pytest
from tests.support.deployed import Deployed, steady, tiny

pytestmark = [pytest.mark.system, pytest.mark.cluster, pytest.mark.timeout(1200)]


def test_a_backlog_adds_a_rollout_pod_which_is_deleted_with_the_run(deployed: Deployed) -> None:
    name = f"backlog-{os.getpid()}"
    # A step asks for 16 x 4 x 48 = 3,072 tokens.
    policy = steady(steps=300, promptsPerStep=16)
    autoscale = {"maxReplicas": 2, "tokensPerReplica": 500, "idleSeconds": 60}
    deployed.apply(tiny(name, policy=policy, rollout={"maxNewTokens": 48, "autoscale": autoscale}))
    deployed.wait_run(name, "has 2 replicas", lambda status: status.get("replicas") == 2, 600)
    deployed.wait("both pods", lambda: len(deployed.ready(component="rollout", run=name)) == 2, 120)
    deployed.kubectl("get", "runs,pods")
    # A suspended run has no backlog and no pods.
    deployed.kubectl("patch", f"run/{name}", "--type=merge", '--patch={"spec": {"suspend": true}}')
    deployed.wait("no pods", lambda: not deployed.pods(run=name), 120)
    deployed.kubectl("delete", f"run/{name}")
