"""Preferences outlive the definition of Run and the namespace itself."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from tests.support.deployed import NAMESPACE, Deployed, Object, tiny

import accord
import kube
from accord.preference import v1 as preference_v1

pytestmark = [pytest.mark.system, pytest.mark.cluster, pytest.mark.timeout(1200)]
CLAIMS = ("data", "state-preference-0", "state-controller-0")


def test_deleting_the_definition_of_run_and_the_namespace_loses_no_preference(deployed: Deployed) -> None:
    name = f"said-{os.getpid()}"
    deployed.apply(tiny(name))
    deployed.wait_run(name, "has collected", lambda status: status.get("stage") in ("reward_model", "policy"), 300)
    before = exported()
    assert len(before) >= 24

    kube.kubectl("delete", "crd/runs.accord.dev", timeout=180)
    deployed.wait("its pods are gone", lambda: not deployed.pods(run=name), 180)
    assert exported() == before
    kube.kubectl("apply", "-k", str(kube.ROOT / "k8s/crds"))

    claims = [kube.objects(NAMESPACE, f"pvc/{claim}")[0] for claim in CLAIMS]
    volumes = [claim["spec"]["volumeName"] for claim in claims]
    for volume in volumes:
        (body,) = kube.objects(NAMESPACE, f"pv/{volume}")
        assert body["spec"]["persistentVolumeReclaimPolicy"] == "Retain", "this cluster's volumes go with their claims"
    kube.kubectl("delete", "namespace", NAMESPACE, "--timeout=180s", timeout=200)
    kube.kubectl("create", "namespace", NAMESPACE)
    for claim, volume in zip(claims, volumes, strict=True):
        kube.kubectl("patch", f"pv/{volume}", "--type=json", '--patch=[{"op": "remove", "path": "/spec/claimRef"}]')
        deployed.kubectl("create", "-f", "-", text=json.dumps(bound(claim)))
    kube.deploy(deployed.overlay)
    assert exported() == before


def bound(claim: Object) -> Object:
    """The same claim, bound to the volume that it had."""
    return {
        **{key: claim[key] for key in ("apiVersion", "kind", "spec")},
        "metadata": {"name": claim["metadata"]["name"]},
    }


def exported() -> list[bytes]:
    """All feedback, one record each."""

    async def read(address: str) -> list[bytes]:
        async with accord.Client(preference=address) as client:
            records = client.preferences.export_records(preference_v1.SNAPSHOT_KIND_PREFERENCES)
            return sorted([record.SerializeToString(deterministic=True) async for record in records])

    with kube.forwarded(NAMESPACE, "preference", 7003) as address:
        return asyncio.run(read(address))
