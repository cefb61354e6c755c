"""A run's own copies of the services: the cluster's objects, made from templates that the deployment keeps.

A template is a Deployment or StatefulSet with the label `accord.dev/template: <service>` (and `accord.dev/engine` for a
rollout engine) and usually no replicas. What images, volumes, certificates or devices a service has is said there, with
kustomize, and nowhere in this code. Pure functions: dicts in, dicts out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from accord_controller.launchers.kubernetes.cluster import Object

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
    """One run's copy of a service. Of a rollout service there may be several: `number` of them, from 1, in the `set` of
    those that draw together, told the engine's `options` (JSON). Each is known by an address of its own."""

    run_id: str
    service: str
    engine: str = ""
    set: str = ""
    number: int = 0
    options: str = ""

    @property
    def name(self) -> str:
        """`demo-trainer`, `demo-rollout-vllm-2`, of those that swap 3 brought in `demo-rollout-vllm-swap-3-2`."""
        parts = (self.service, self.engine, self.set if self.set != FIRST else "", str(self.number or ""))
        return object_name(self.run_id, *filter(None, parts))

    @property
    def labels(self) -> dict[str, str]:
        """What its pods are found by."""
        found = {COMPONENT: self.service, RUN: self.run_id}
        return {**found, ENGINE: self.engine, SET: self.set, NUMBER: str(self.number)} if self.set else found


# The set of rollout services that a run begins with.
FIRST = "first"


def set_of(name: str) -> str:
    """How a RolloutSet of this name is called in labels and names: `swap-2` of `rollout.demo.2`."""
    return f"swap-{name.rpartition('.')[2]}" if name else FIRST


def object_name(run_id: str, *parts: str) -> str:
    """`demo-rollout-vllm`; where that is too long, the run's name is shortened and told apart by a hash."""
    suffix = "-".join(parts)
    if len(run_id) + 1 + len(suffix) <= LONGEST_NAME - 2:  # a pod of a StatefulSet adds its number
        return f"{run_id}-{suffix}"
    mark = hashlib.sha256(run_id.encode()).hexdigest()[:8]
    return f"{run_id[: LONGEST_NAME - 13 - len(suffix)]}-{mark}-{suffix}"


def owner_of(run: Object | None) -> list[Object]:
    """What an object says of the Run that it goes away with; nothing for a run that is no custom resource."""
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


def workload(template: Object, copy: Workload, *, owner: Sequence[Object]) -> Object:
    """The run's Deployment or StatefulSet of a template: one pod."""
    spec: dict[str, Any] = deepcopy(template["spec"])
    spec["replicas"] = 1
    spec["selector"] = {"matchLabels": copy.labels}
    pod = spec["template"]
    kept = {key: value for key, value in pod["metadata"].get("labels", {}).items() if key != SHARED}
    pod["metadata"] = {**pod["metadata"], "labels": {**kept, **copy.labels}}
    pod["metadata"].pop("creationTimestamp", None)
    for container in pod["spec"]["containers"]:
        _own_settings(container, copy)
    if "serviceName" in spec:
        spec["serviceName"] = copy.name
    common = {key: value for key, value in template["metadata"]["labels"].items() if key != TEMPLATE}
    return {
        "apiVersion": "apps/v1",
        "kind": template["kind"],
        "metadata": {"name": copy.name, "labels": {**common, **copy.labels}, "ownerReferences": list(owner)},
        "spec": spec,
    }


def address_of(template: Object, copy: Workload, *, owner: Sequence[Object]) -> Object:
    """The Service in front of a copy: one name for it, whichever pod it is at the time."""
    # The protocol, although it is the default: it is part of the key that server-side apply merges by.
    port = {"name": "grpc", "port": port_of(template), "targetPort": "grpc", "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": copy.name, "labels": copy.labels, "ownerReferences": list(owner)},
        "spec": {"selector": copy.labels, "ports": [port]},
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


def _own_settings(container: Object, copy: Workload) -> None:
    """Two copies must not share a state folder: each has one below the template's. An engine has its options."""
    folder = f"ACCORD_{copy.service.upper()}_STATE_DIR"
    for entry in container.get("env", ()):
        if entry["name"] == folder and "value" in entry:
            entry["value"] = f"{entry['value']}/{copy.run_id}"
    if copy.options:
        told = "ACCORD_ROLLOUT_ENGINE_OPTIONS"
        others = [entry for entry in container.get("env", ()) if entry["name"] != told]
        container["env"] = [*others, {"name": told, "value": copy.options}]
