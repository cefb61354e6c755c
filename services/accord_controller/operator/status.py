"""The status of a run in kubectl, and the conditions that follow from its state and events. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from accord import names
from accord.controller import v1 as controller_v1
from accord.renamed import serving_replicas
from accord_controller.operator.resource import Object

ACCEPTED = "Accepted"  # the controller has the spec of the object
READY = "ServicesReady"  # the services that the run needs are available
COMPLETE = "Complete"  # like a Job's
FAILED = "Failed"
# The `[REASON]` at the end of a message; in a `retry` event, the time of the next attempt follows it.
_REASON = re.compile(r"\[(?P<reason>[A-Za-z][A-Za-z_]*)\](?:[;.] [^\[]*)?$")
_PROGRESS = ("stage_started", "step", "stage_finished", "iteration_finished")


def condition(kind: str, holds: bool, reason: str, message: str = "") -> Object:
    """One condition."""
    return {"type": kind, "status": "True" if holds else "False", "reason": _camel(reason), "message": message}


def merged(before: Sequence[Object], changes: Sequence[Object], generation: int) -> list[Object]:
    """The conditions after changes; a condition's time is that of its last change of status."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = {one["type"]: one for one in before}
    for change in changes:
        old = found.get(change["type"])
        since = old["lastTransitionTime"] if old and old["status"] == change["status"] else now
        found[change["type"]] = {**change, "lastTransitionTime": since, "observedGeneration": generation}
    return list(found.values())


def of_event(event: controller_v1.RunEvent) -> list[Object]:
    """The conditions that an event changes."""
    if event.kind in _PROGRESS:
        return [condition(READY, True, "AtWork")]
    if event.kind in ("waiting", "retry"):
        match = _REASON.search(event.message)
        return [condition(READY, False, match["reason"] if match else event.kind, event.message)]
    return []


def of_state(current: controller_v1.RunStatus) -> list[Object]:
    """The conditions that follow from a run's state."""
    return [*_last_swap(current), *_ended(current)]


def _last_swap(current: controller_v1.RunStatus) -> list[Object]:
    """The condition that reports whether the spec's rollout engine serves the run, is starting, or was refused."""
    if not current.swaps:
        return []
    swap = current.swaps[-1]
    engine = f"`{swap.services.engine}`" if swap.services.engine else "the requested engine"
    if swap.state == controller_v1.SWAP_STATE_REFUSED:
        serving = current.rollout.engine or ", ".join(current.rollout.addresses)
        message = f"`{serving}` is still serving. {engine} was refused: {swap.message}"
        return [condition(ACCEPTED, False, swap.reason or "SwapRefused", message)]
    if swap.state == controller_v1.SWAP_STATE_DONE:
        return [condition(ACCEPTED, True, "Edited", f"{engine} is serving")]
    return [condition(ACCEPTED, True, "Swapping", f"{engine} is starting")]


def _ended(current: controller_v1.RunStatus) -> list[Object]:
    state = current.state
    if state == controller_v1.RUN_STATE_SUCCEEDED:
        return [condition(COMPLETE, True, "Succeeded", current.message), condition(FAILED, False, "Succeeded")]
    if state in (controller_v1.RUN_STATE_FAILED, controller_v1.RUN_STATE_CANCELLED):
        reason = "Failed" if state == controller_v1.RUN_STATE_FAILED else "Cancelled"
        return [condition(FAILED, True, reason, current.message), condition(COMPLETE, False, reason)]
    return [condition(COMPLETE, False, "AtWork"), condition(FAILED, False, "AtWork")]


def _camel(reason: str) -> str:
    """IMAGE_MISSING as `ImageMissing`; a reason already in that form is unchanged."""
    if not reason.isupper():
        return reason[:1].upper() + reason[1:]
    return "".join(part.title() for part in reason.split("_"))


def status_of(run: controller_v1.Run) -> Object:
    """The object's status without its conditions."""
    current = run.status
    shown: Object = {
        "state": names.state_name(current.state).title(),
        "stage": names.enum_name(controller_v1.Stage, current.stage),
        "iteration": current.iteration,
        "iterations": current.resolved_spec.iterations,
        "step": current.step,
        "totalSteps": current.total_steps,
        "progress": f"{current.step}/{current.total_steps}" if current.total_steps else "",
        "message": current.message,
        "simulatedFeedback": current.simulated_feedback,
        "engine": ", ".join(current.rollout.addresses) or current.rollout.engine,
        "replicas": serving_replicas(current) or len(current.rollout.addresses) or current.rollout.replicas,
        "selector": f"accord.dev/run={run.run_id},app.kubernetes.io/component=rollout",
        "results": [_result(result) for result in current.iterations],
    }
    if current.HasField("promoted"):
        shown["promoted"] = {"uri": current.promoted.uri, "digest": current.promoted.digest}
    return shown


def _result(result: controller_v1.IterationResult) -> Object:
    shown: Object = {"iteration": result.iteration, "promoted": result.promoted, "reason": result.gate_reason}
    for key, field in (("heldoutScore", "heldout_score"), ("kl", "kl_nats"), ("rewardModelAccuracy", "rm_accuracy")):
        if result.HasField(field):  # type: ignore[arg-type]
            shown[key] = round(getattr(result, field), 4)
    return {key: value for key, value in shown.items() if value != ""}


def figures_of(metrics: Mapping[str, float]) -> Object:
    """The metrics of a step that kubectl shows in columns."""
    shown = (("reward", "reward"), ("kl", "kl_k1"))
    return {key: round(metrics[name], 4) for key, name in shown if name in metrics}
