"""Diagnoses what keeps pods from running and how to fix it: pure functions of the API's objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from accord_controller.cluster import Object

# Reasons of a waiting container.
_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable")
_CONFIG = ("CreateContainerConfigError", "CreateContainerError")
CRASHING = "CrashLoopBackOff"


@dataclass(frozen=True)
class PodProblem:
    """The reason that a pod does not run. The message says how to fix it."""

    reason: str
    message: str


def is_ready(pod: Object) -> bool:
    """Whether the pod accepts calls and is not being deleted."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))


def restarts(pod: Object) -> int:
    """The number of times that its containers were restarted."""
    return sum(int(status.get("restartCount", 0)) for status in pod["status"].get("containerStatuses", ()))


def find_problem(pods: Sequence[Object], events: Iterable[Object]) -> PodProblem | None:
    """The first problem of the pods, or None. `events`: those of the pods and of their owners, oldest first."""
    for pod in pods:
        problem = _of_pod(pod)
        if problem is not None:
            return problem
    waiting = {pod["metadata"]["uid"] for pod in pods if pod["status"].get("phase") == "Pending"}
    for event in reversed(list(events)):
        message = str(event.get("message", ""))
        if event.get("reason") == "FailedCreate" and not pods:
            return _refused(message)
        if event.get("reason") == "FailedMount" and event["involvedObject"].get("uid") in waiting:
            name = event["involvedObject"]["name"]
            return PodProblem(
                "CONFIG_MISSING",
                f"a volume of pod {name} cannot be mounted: {message}. Create that Secret, ConfigMap or claim; the pod "
                "then starts automatically",
            )
    return None


def _refused(message: str) -> PodProblem:
    if "exceeded quota" in message:
        return PodProblem(
            "QUOTA_FULL",
            f"the namespace's quota is used up: {message}. Free some of it (kubectl get resourcequota), or raise it",
        )
    return PodProblem("PODS_REFUSED", f"the cluster refuses the pod: {message}")


def _of_pod(pod: Object) -> PodProblem | None:
    name = pod["metadata"]["name"]
    status: dict[str, Any] = pod["status"]
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return PodProblem(
                "UNSCHEDULABLE",
                f"no node can run pod {name}: {condition.get('message', '')} Add a suitable node, or change the "
                "requests, the node selector or the tolerations of the template",
            )
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting")
        if waiting is None:
            continue
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _IMAGE:
            return PodProblem(
                "IMAGE_MISSING",
                f"the image {container['image']} of pod {name} is not available ({reason}): {message}. Push it, or "
                "correct its name or the pull secret in the template",
            )
        if reason in _CONFIG:
            return PodProblem(
                "CONFIG_MISSING",
                f"the configuration of pod {name} is missing ({reason}): {message}. Create that Secret or ConfigMap; "
                "the pod then starts automatically",
            )
        if reason == CRASHING:
            return PodProblem(CRASHING, f"pod {name} keeps crashing: {message}")
    return None
