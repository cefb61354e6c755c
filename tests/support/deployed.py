"""Runs on a cluster, by kubectl alone: as a user applies, edits and watches them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kube

NAMESPACE = "accord-test"
Object = dict[str, Any]
WAIT_SECONDS = 300.0
ENDED = ("Succeeded", "Failed", "Cancelled")


@dataclass(frozen=True)
class Deployed:
    """A namespace in which Accord is deployed."""

    # The kustomization that was applied.
    overlay: Path

    def kubectl(self, *arguments: str, text: str | None = None, timeout: float = 120) -> str:
        """The output of kubectl in the namespace, also appended to the file ACCORD_TRANSCRIPT."""
        output = kube.kubectl("-n", NAMESPACE, *arguments, text=text, timeout=timeout)
        record(arguments, output)
        return output

    def refused(self, *arguments: str, text: str | None = None) -> str:
        """The error of kubectl. AssertionError where it succeeds."""
        try:
            self.kubectl(*arguments, text=text)
        except kube.KubectlError as error:
            record(arguments, str(error).partition(": ")[2])
            return str(error)
        raise AssertionError(f"kubectl {' '.join(arguments)} was not refused")

    def apply(self, body: Object) -> None:
        """`kubectl apply -f -`."""
        self.kubectl("apply", "-f", "-", text=json.dumps(body))

    def run(self, name: str) -> Object:
        """A Run's object."""
        return kube.objects(NAMESPACE, f"run/{name}")[0]

    def pods(self, **labels: str) -> list[Object]:
        """Pods that are not being deleted; keys are the parts of labels after the slash."""
        prefix = {"component": "app.kubernetes.io"}
        selector = ",".join(f"{prefix.get(key, 'accord.dev')}/{key}={value}" for key, value in labels.items())
        found = kube.objects(NAMESPACE, "pods", "-l", selector)
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def ready(self, **labels: str) -> list[Object]:
        """The pods that accept calls."""
        return [pod for pod in self.pods(**labels) if is_true(pod, "Ready")]

    def wait(self, what: str, holds: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
        """What `holds` returns once it is true."""
        deadline = time.monotonic() + seconds
        while True:
            found = holds()
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {what}\n{self.evidence()}")
            time.sleep(1)

    def wait_run(self, name: str, what: str, holds: Callable[[Object], Any], seconds: float = WAIT_SECONDS) -> Object:
        """A Run's status once `holds` accepts it. AssertionError where the run ends first."""

        def look() -> Object | None:
            status: Object = self.run(name).get("status", {})
            if holds(status):
                return status
            assert status.get("state") not in (*ENDED, "Refused"), f"ended before {what}: {status}\n{self.evidence()}"
            return None

        found: Object = self.wait(f"run {name}: {what}", look, seconds)
        return found

    def events(self, name: str) -> list[Object]:
        """A Run's events, oldest first."""
        found = kube.objects(
            NAMESPACE, "events", "--field-selector", f"involvedObject.kind=Run,involvedObject.name={name}"
        )
        return sorted(found, key=lambda event: str(event["lastTimestamp"]))

    def replace(self, **labels: str) -> None:
        """Deletes a pod and waits until another one replaces it."""
        old = self.wait(f"a pod of {labels}", lambda: self.ready(**labels))[0]["metadata"]
        self.kubectl("delete", "pod", old["name"], "--wait=false")

        def others() -> bool:
            return any(pod["metadata"]["uid"] != old["uid"] for pod in self.ready(**labels))

        self.wait(f"another pod of {labels}", others)

    def evidence(self) -> str:
        """The namespace's objects, events and logs, for a failed test."""
        seen = []
        for arguments in (("get", "runs,pods"), ("get", "events", "--sort-by=.lastTimestamp")):
            output = kube.kubectl("-n", NAMESPACE, *arguments)
            seen += output.splitlines()[-40:]
        for name in ("deployment/operator", "statefulset/controller"):
            try:
                seen += [f"--- {name}", kube.kubectl("-n", NAMESPACE, "logs", name, "--tail=30")]
            except kube.KubectlError as error:
                seen.append(str(error))
        return "\n".join(seen)


def is_true(body: Object, condition: str) -> bool:
    """Whether a condition holds."""
    found = body.get("status", {}).get("conditions", ())
    return any(one["type"] == condition and one["status"] == "True" for one in found)


def condition(status: Object, kind: str) -> Object:
    """One of a Run's conditions; empty where there is none."""
    return next((one for one in status.get("conditions", ()) if one["type"] == kind), {})


def tiny(name: str, **spec: Any) -> Object:
    """A Run that takes a cluster minutes; its annotators prefer long answers."""
    return {
        "apiVersion": "accord.dev/v1",
        "kind": "Run",
        "metadata": {"name": name},
        "spec": {
            "model": "/data/models/tiny",
            "seed": 7,
            "iterations": 1,
            "prompts": {"files": ["prompts.jsonl"]},
            "feedback": {
                "simulated": {"scorers": [{"name": "length", "options": {"target": 60}}], "noise": 0.05},
                "promptsPerIteration": 24,
            },
            "rewardModel": {"batchSize": 8, "options": {"learning_rate": 0.001, "warmup_updates": 0}},
            "policy": {
                "steps": 5,
                "promptsPerStep": 4,
                "samplesPerPrompt": 4,
                "checkpointEvery": 2,
                "options": {"learning_rate": 0.001, "warmup_updates": 1},
            },
            "evaluate": {"prompts": 8, "maxKl": 1000, "minGain": -10},
            "rollout": {"maxNewTokens": 12},
            **spec,
        },
    }


def steady(**policy: Any) -> Object:
    """A policy stage of many steps at a learning rate so low that the policy stays random: at the usual rate a tiny
    policy collapses onto one answer."""
    options = {"learning_rate": 1e-6, "warmup_updates": 1}
    return {**tiny("")["spec"]["policy"], "options": options, **policy}


def record(arguments: tuple[str, ...], output: str) -> None:
    """Appends a command and its output to the transcript, for the documentation."""
    path = os.environ.get("ACCORD_TRANSCRIPT")
    if path:
        with Path(path).open("a") as file:
            file.write(f"{time.strftime('%H:%M:%S')} $ kubectl {' '.join(arguments)}\n{output}\n")
