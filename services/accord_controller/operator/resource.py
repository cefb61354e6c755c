"""The custom resource and the contract: a Run's object read as a Run, and a Run's status written for kubectl.

Pure functions: dicts and messages in, dicts and messages out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from accord import runfile
from accord.controller import v1 as controller_v1

Object = dict[str, Any]
# What the resource says beside the run's spec.
SUSPEND = "suspend"
ENDED = (controller_v1.RUN_STATE_SUCCEEDED, controller_v1.RUN_STATE_FAILED, controller_v1.RUN_STATE_CANCELLED)
AT_WORK = (controller_v1.RUN_STATE_PENDING, controller_v1.RUN_STATE_RUNNING)


def run_of(body: Object, base: Path) -> controller_v1.Run:
    """The Run that an object asks for; relative paths are below `base`. InvalidArgument names the field."""
    spec = {key: value for key, value in body["spec"].items() if key != SUSPEND}
    return runfile.run_of(
        {
            "apiVersion": runfile.API_VERSION,
            "kind": runfile.KIND,
            "metadata": {"name": body["metadata"]["name"]},
            "spec": spec,
        },
        base,
    )


def object_of(run: controller_v1.Run) -> Object:
    """The object of a run that was not started by one."""
    spec = _plain(run.spec)
    if run.status.state == controller_v1.RUN_STATE_PAUSED and not run.status.interrupted:
        spec[SUSPEND] = True
    return {
        "apiVersion": runfile.API_VERSION,
        "kind": runfile.KIND,
        "metadata": {"name": run.run_id, "annotations": {"accord.dev/started-by": "grpc"}},
        "spec": spec,
    }


def edits_of(run: controller_v1.Run) -> Object:
    """What makes an object's spec say again what the run's says, as a merge patch of what may be edited."""
    there = _plain(run.spec.rollout)
    return {"rollout": {key: there.get(key) for key in ("engine", "replicas", "engineOptions")}}


def _plain(message: Message) -> Object:
    """As in a run file. Whole numbers are numbers: JSON of protobuf writes those of 64 bits as texts."""
    shown: Object = json_format.MessageToDict(message)
    for field, value in message.ListFields():
        if field.type in (field.TYPE_INT64, field.TYPE_UINT64) and not field.is_repeated:
            shown[field.json_name] = int(value)
        elif _is_plain_message(field):
            shown[field.json_name] = _plain(value)
    return shown


def is_suspended(body: Object) -> bool:
    """Whether the run should stop at its next durable point and wait."""
    return bool(body["spec"].get(SUSPEND, False))


def differences(before: Message, after: Message, where: str = "spec") -> list[str]:
    """The fields that two specs say otherwise, as in the resource: `spec.policy.steps`."""
    found: list[str] = []
    for field in before.DESCRIPTOR.fields:
        path = f"{where}.{field.json_name}"
        one, other = getattr(before, field.name), getattr(after, field.name)
        if field.has_presence and before.HasField(field.name) != after.HasField(field.name):
            found.append(path)
        elif _is_plain_message(field):
            found += differences(one, other, path)
        elif one != other:
            found.append(path)
    return found


def _is_plain_message(field: Any) -> bool:
    kind = field.message_type
    return not field.is_repeated and kind is not None and kind.full_name.startswith("accord.")


def status_of(run: controller_v1.Run) -> Object:
    """What the object's status shows of a run, without its conditions."""
    status = run.status
    shown: Object = {
        "state": controller_v1.RunState.Name(status.state).removeprefix("RUN_STATE_").title(),
        "stage": controller_v1.Stage.Name(status.stage).removeprefix("STAGE_").lower(),
        "iteration": status.iteration,
        "iterations": status.resolved_spec.iterations,
        "step": status.step,
        "totalSteps": status.total_steps,
        "progress": f"{status.step}/{status.total_steps}" if status.total_steps else "",
        "message": status.message,
        "simulatedFeedback": status.simulated_feedback,
        "engine": ", ".join(status.rollout.addresses) or status.rollout.engine,
        "replicas": status.drawing or len(status.rollout.addresses) or status.rollout.replicas,
        "selector": f"accord.dev/run={run.run_id},app.kubernetes.io/component=rollout",
        "results": [_result(result) for result in status.iterations],
    }
    if status.HasField("promoted"):
        shown["promoted"] = {"uri": status.promoted.uri, "digest": status.promoted.digest}
    return shown


def _result(result: controller_v1.IterationResult) -> Object:
    shown: Object = {"iteration": result.iteration, "promoted": result.promoted, "reason": result.gate_reason}
    for key, field in (("heldoutScore", "heldout_score"), ("kl", "kl_nats"), ("rewardModelAccuracy", "rm_accuracy")):
        if result.HasField(field):  # type: ignore[arg-type]
            shown[key] = round(getattr(result, field), 4)
    return {key: value for key, value in shown.items() if value != ""}


def figures_of(metrics: Mapping[str, float]) -> Object:
    """The last step's figures that kubectl shows in columns."""
    names = (("reward", "reward"), ("kl", "kl_k1"))
    return {key: round(metrics[name], 4) for key, name in names if name in metrics}
