"""The placement of a Run, applied to its workloads: resources, nodes, priority, a queue, and trainers of several pods.
Pure functions: dicts and messages in, dicts out."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from google.protobuf import json_format

from accord.controller import v1 as controller_v1
from accord_controller.cluster import Object

KUEUE = "kueue.x-k8s.io"
QUEUE = f"{KUEUE}/queue-name"
RENDEZVOUS_PORT = 29500
# Each pod is a node of torchrun, numbered by the StatefulSet; rank 0, which serves, is pod 0. When a rank is lost, all
# ranks end, and their containers restart and rendezvous again.
_TORCHRUN = (
    "exec python -m torch.distributed.run --nnodes {ranks} --nproc-per-node 1 --node-rank ${{HOSTNAME##*-}} "
    '--master-addr {first} --master-port {port} -m accord_trainer "$@"'
)


def of_run(run: Object | None) -> controller_v1.PlacementSpec:
    """The placement of the custom resource; empty for a run without one."""
    given = run["spec"].get("placement", {}) if run is not None else {}
    return json_format.ParseDict(given, controller_v1.PlacementSpec(), ignore_unknown_fields=True)


def ranks_of(placement: controller_v1.PlacementSpec, service: str) -> int:
    """The number of pods that form one service."""
    return max(1, placement.trainer_ranks) if service == "trainer" else 1


def placed(workload: Object, placement: controller_v1.PlacementSpec, service: str, *, kueue: bool) -> Object:
    """The workload with the Run's placement applied. `kueue`: whether the cluster has Kueue."""
    body = deepcopy(workload)
    wanted: controller_v1.ServicePlacement = getattr(placement, service)
    pod = body["spec"]["template"]["spec"]
    if wanted.node_selector:
        pod["nodeSelector"] = {**pod.get("nodeSelector", {}), **wanted.node_selector}
    if wanted.tolerations:
        pod["tolerations"] = [*pod.get("tolerations", ()), *map(_toleration, wanted.tolerations)]
    if wanted.priority_class:
        pod["priorityClassName"] = wanted.priority_class
    if wanted.resources:
        resources = _serving(pod).setdefault("resources", {})
        for kind in ("requests", "limits"):
            resources[kind] = {**resources.get(kind, {}), **wanted.resources}
    if placement.queue and kueue:
        body["metadata"]["labels"][QUEUE] = placement.queue
    ranks = ranks_of(placement, service)
    return _of_ranks(body, ranks) if ranks > 1 else body


def rendezvous_service(workload: Object, labels: dict[str, str], *, owner: Sequence[Object]) -> Object:
    """The headless Service through which a trainer's pods find its first pod, even before that pod is ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": rendezvous_name(workload), "labels": labels, "ownerReferences": list(owner)},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels,
            "ports": [
                {"name": "ranks", "port": RENDEZVOUS_PORT, "targetPort": RENDEZVOUS_PORT, "protocol": "TCP"},
            ],
        },
    }


def rendezvous_name(workload: Object) -> str:
    """The name of that Service."""
    return f"{workload['metadata']['name']}-ranks"


def _of_ranks(body: Object, ranks: int) -> Object:
    """A StatefulSet whose pods are the ranks. Only the first pod serves and becomes ready; no probe restarts the
    others."""
    spec = body["spec"]
    spec.update(replicas=ranks, podManagementPolicy="Parallel", serviceName=rendezvous_name(body))
    container = _serving(spec["template"]["spec"])
    for probe in ("startupProbe", "livenessProbe"):
        container.pop(probe, None)
    first = f"{body['metadata']['name']}-0.{rendezvous_name(body)}"
    command = _TORCHRUN.format(ranks=ranks, first=first, port=RENDEZVOUS_PORT)
    container["command"] = ["/bin/sh", "-c", command, "accord"]
    return body


def _serving(pod: dict[str, Any]) -> dict[str, Any]:
    """The container that serves."""
    found: dict[str, Any] = next(
        one for one in pod["containers"] if any(port.get("name") == "grpc" for port in one.get("ports", ()))
    )
    return found


def _toleration(one: controller_v1.Toleration) -> Object:
    return {field.name: value for field, value in one.ListFields()}
