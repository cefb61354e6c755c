"""What keeps pods from running, in words that say what to do: pure functions over what the API shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from accord_controller.launchers.kubernetes.cluster import Object

# Reasons of a waiting container, and what a person can do about it.
_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable")
_CONFIG = ("CreateContainerConfigError", "CreateContainerError")
CRASHING = "CrashLoopBackOff"


@dataclass(frozen=True)
class PodProblem:
    """Why a pod does not run. It may go away when somebody does what the message says."""

    reason: str
    message: str


def is_ready(pod: Object) -> bool:
    """Whether it takes calls and is not being deleted."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))


def restarts(pod: Object) -> int:
    """How often its containers were started again."""
    return sum(int(status.get("restartCount", 0)) for status in pod["status"].get("containerStatuses", ()))


def find_trouble(pods: Sequence[Object], events: Iterable[Object]) -> PodProblem | None:
    """The first thing that is wrong with pods; `events` are those of the pods and of what makes them, oldest first.
    None while all goes its way."""
    for pod in pods:
        trouble = _of_pod(pod)
        if trouble is not None:
            return trouble
    waiting = {pod["metadata"]["uid"] for pod in pods if pod["status"].get("phase") == "Pending"}
    for event in reversed(list(events)):
        message = str(event.get("message", ""))
        if event.get("reason") == "FailedCreate" and not pods:
            return _refused(message)
        if event.get("reason") == "FailedMount" and event["involvedObject"].get("uid") in waiting:
            name = event["involvedObject"]["name"]
            return PodProblem(
                "CONFIG_MISSING",
                f"pod {name} cannot have a volume: {message}. Create that Secret, ConfigMap or claim; the pod "
                "goes on by itself",
            )
    return None


def _refused(message: str) -> PodProblem:
    if "exceeded quota" in message:
        return PodProblem(
            "QUOTA_FULL",
            f"the namespace's quota is full: {message}. Free some of it (kubectl get resourcequota), or have it raised",
        )
    return PodProblem("PODS_REFUSED", f"the cluster refuses the pod: {message}")


def _of_pod(pod: Object) -> PodProblem | None:
    name = pod["metadata"]["name"]
    status: dict[str, Any] = pod["status"]
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return PodProblem(
                "UNSCHEDULABLE",
                f"no node can take pod {name}: {condition.get('message', '')} Add such a node, or ask for less "
                "(requests, node selector, tolerations of the template)",
            )
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting")
        if waiting is None:
            continue
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _IMAGE:
            return PodProblem(
                "IMAGE_MISSING",
                f"the image {container['image']} of pod {name} cannot be had ({reason}): {message}. Push it, or "
                "correct its name or the pull secret in the template",
            )
        if reason in _CONFIG:
            return PodProblem(
                "CONFIG_MISSING",
                f"pod {name} needs what is not there ({reason}): {message}. Create that Secret or ConfigMap; the pod "
                "goes on by itself",
            )
        if reason == CRASHING:
            return PodProblem(CRASHING, f"pod {name} keeps ending: {message}")
    return None
