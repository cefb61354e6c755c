"""Converts between a Run object and the contract's Run, and compares them.

Pure functions: dicts and messages in, dicts and messages out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from accord import runfile
from accord.controller import v1 as controller_v1

Object = dict[str, Any]
# The field of the object's spec that the run's spec does not have.
SUSPEND = "suspend"


def run_of(body: Object, base: Path) -> controller_v1.Run:
    """The Run that an object describes; relative paths start from `base`. InvalidArgument names the field."""
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
    """The object for a run that was started without one."""
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
    """A merge patch that gives an object's spec the run's values of the editable rollout fields."""
    rollout = _plain(run.spec.rollout)
    return {"rollout": {key: rollout.get(key) for key in ("engine", "replicas", "engineOptions")}}


def _plain(message: Message) -> Object:
    """Converts to the form of a run file, where 64-bit integers are numbers; protobuf's JSON writes them as strings."""
    shown: Object = json_format.MessageToDict(message)
    for field, value in message.ListFields():
        if field.type in (field.TYPE_INT64, field.TYPE_UINT64) and not field.is_repeated:
            shown[field.json_name] = int(value)
        elif _is_plain_message(field):
            shown[field.json_name] = _plain(value)
    return shown


def is_suspended(body: Object) -> bool:
    """Whether the run should pause at its next durable point."""
    return bool(body["spec"].get(SUSPEND, False))


def differences(before: Message, after: Message, where: str = "spec") -> list[str]:
    """The fields in which two specs differ, with their names in the object: `spec.policy.steps`."""
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
