"""A run's workloads: Deployments, StatefulSets and Services, created from templates that are part of the deployment.

A template is a Deployment or StatefulSet with the label `accord.dev/template: <service>` (and `accord.dev/engine` for a
rollout engine) and usually no replicas. The template, not this code, sets images, volumes, certificates and devices,
with kustomize. Pure functions: dicts in, dicts out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from accord_controller.cluster import Object

TEMPLATE = "accord.dev/template"
ENGINE = "accord.dev/engine"
RUN = "accord.dev/run"
SET = "accord.dev/set"
NUMBER = "accord.dev/number"
SHARED = "accord.dev/shared"
COMPONENT = "app.kubernetes.io/component"
LONGEST_NAME = 63  # of a Service, and of a label's value


@dataclass(frozen=True)
class Workload:
    """A run's instance of a service. Each rollout replica is a workload: replica `number`, from 1, of the `set` that
    serves together, with the engine's `options` (JSON). Each has its own address."""

    run_id: str
    service: str
    engine: str = ""
    set: str = ""
    number: int = 0
    options: str = ""

    @property
    def name(self) -> str:
        """`demo-trainer`, `demo-rollout-vllm-2`; `demo-rollout-vllm-swap-3-2` for a replica that swap 3 added."""
        parts = (self.service, self.engine, self.set if self.set != FIRST else "", str(self.number or ""))
        return object_name(self.run_id, *filter(None, parts))

    @property
    def labels(self) -> dict[str, str]:
        """The labels that select its pods."""
        labels = {COMPONENT: self.service, RUN: self.run_id}
        if not self.set:
            return labels
        return {**labels, ENGINE: self.engine, SET: self.set, NUMBER: str(self.number)}


# The set of rollout services that a run starts with.
FIRST = "first"


def set_of(name: str) -> str:
    """The name of a RolloutSet in labels and object names: `swap-2` for `rollout.demo.2`."""
    return f"swap-{name.rpartition('.')[2]}" if name else FIRST


def object_name(run_id: str, *parts: str) -> str:
    """`demo-rollout-vllm`. If that is too long, the run's name is truncated and a hash keeps it unique."""
    suffix = "-".join(parts)
    if len(run_id) + 1 + len(suffix) <= LONGEST_NAME - 2:  # a pod of a StatefulSet adds its number
        return f"{run_id}-{suffix}"
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:8]
    return f"{run_id[: LONGEST_NAME - 13 - len(suffix)]}-{digest}-{suffix}"


def owner_of(run: Object | None) -> list[Object]:
    """The owner reference to the Run, so that the object is deleted with it; empty for a run without a custom
    resource."""
    if run is None:
        return []
    return [
        {
            "apiVersion": run["apiVersion"],
            "kind": run["kind"],
            "name": run["metadata"]["name"],
            "uid": run["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ]


def workload_of(template: Object, workload: Workload, *, owner: Sequence[Object]) -> Object:
    """A run's Deployment or StatefulSet, created from a template, with one pod."""
    spec: dict[str, Any] = deepcopy(template["spec"])
    spec["replicas"] = 1
    spec["selector"] = {"matchLabels": workload.labels}
    pod = spec["template"]
    labels = {key: value for key, value in pod["metadata"].get("labels", {}).items() if key != SHARED}
    pod["metadata"] = {**pod["metadata"], "labels": {**labels, **workload.labels}}
    pod["metadata"].pop("creationTimestamp", None)
    for container in pod["spec"]["containers"]:
        _set_environment(container, workload)
    if "serviceName" in spec:
        spec["serviceName"] = workload.name
    common = {key: value for key, value in template["metadata"]["labels"].items() if key != TEMPLATE}
    return {
        "apiVersion": "apps/v1",
        "kind": template["kind"],
        "metadata": {"name": workload.name, "labels": {**common, **workload.labels}, "ownerReferences": list(owner)},
        "spec": spec,
    }


def service_of(template: Object, workload: Workload, *, owner: Sequence[Object]) -> Object:
    """The Service in front of a workload: a stable name for whichever pod runs it."""
    # The protocol is set although TCP is the default, because server-side apply merges ports by it.
    port = {"name": "grpc", "port": port_of(template), "targetPort": "grpc", "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": workload.name, "labels": workload.labels, "ownerReferences": list(owner)},
        "spec": {"selector": workload.labels, "ports": [port]},
    }


def port_of(template: Object) -> int:
    """The port of the container that serves."""
    ports = [port for container in template["spec"]["template"]["spec"]["containers"] for port in container["ports"]]
    return int(next(port["containerPort"] for port in ports if port.get("name") == "grpc"))


def engines(templates: Sequence[Object]) -> Mapping[str, Object]:
    """The templates of the rollout service, by engine."""
    return {
        template["metadata"]["labels"].get(ENGINE, ""): template
        for template in templates
        if template["metadata"]["labels"][TEMPLATE] == "rollout"
    }


def _set_environment(container: Object, workload: Workload) -> None:
    """Sets the run's state folder, below the template's, because two runs must not share one. Sets the engine's
    options."""
    state_dir = f"ACCORD_{workload.service.upper()}_STATE_DIR"
    for entry in container.get("env", ()):
        if entry["name"] == state_dir and "value" in entry:
            entry["value"] = f"{entry['value']}/{workload.run_id}"
    if workload.options:
        options = "ACCORD_ROLLOUT_ENGINE_OPTIONS"
        others = [entry for entry in container.get("env", ()) if entry["name"] != options]
        container["env"] = [*others, {"name": options, "value": workload.options}]
