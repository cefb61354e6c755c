"""A Run's conditions, from what happens in it: pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from accord.controller import v1 as controller_v1
from accord_controller.operator.resource import Object

ACCEPTED = "Accepted"  # the controller has taken the spec
READY = "ServicesReady"  # what the run needs is there
COMPLETE = "Complete"  # as of a Job
FAILED = "Failed"
# `... [REASON]` at the end of a message says why.
_REASON = re.compile(r"\[(?P<reason>[A-Za-z][A-Za-z_]*)\](?:; trying again.*)?$", re.DOTALL)
_AHEAD = ("stage_started", "step", "stage_finished", "iteration_finished")


def condition(kind: str, holds: bool, reason: str, message: str = "") -> Object:
    """One condition."""
    return {"type": kind, "status": "True" if holds else "False", "reason": _camel(reason), "message": message}


def merged(before: Sequence[Object], changes: Sequence[Object], generation: int) -> list[Object]:
    """Conditions with some of them changed; the time is that of the last change of status."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = {one["type"]: one for one in before}
    for change in changes:
        old = found.get(change["type"])
        since = old["lastTransitionTime"] if old and old["status"] == change["status"] else now
        found[change["type"]] = {**change, "lastTransitionTime": since, "observedGeneration": generation}
    return list(found.values())


def of_event(event: controller_v1.RunEvent) -> list[Object]:
    """What an event changes."""
    if event.kind in _AHEAD:
        return [condition(READY, True, "AtWork")]
    if event.kind in ("waiting", "retry"):
        match = _REASON.search(event.message)
        return [condition(READY, False, match["reason"] if match else event.kind, event.message)]
    return []


def of_state(status: controller_v1.RunStatus) -> list[Object]:
    """What the run's state says."""
    refused = _refused(status)
    return [*([refused] if refused else []), *_over(status)]


def _refused(status: controller_v1.RunStatus) -> Object | None:
    """The last edit of what draws was refused: what the spec says is not what the run does."""
    if not status.swaps:
        return None
    swap = status.swaps[-1]
    if swap.state == controller_v1.SWAP_STATE_REFUSED:
        stays = status.rollout.engine or ", ".join(status.rollout.addresses)
        message = f"{stays} goes on drawing, {swap.services.engine or 'the engine'} was refused: {swap.message}"
        return condition(ACCEPTED, False, swap.reason or "SwapRefused", message)
    if swap.state == controller_v1.SWAP_STATE_DONE:
        return condition(ACCEPTED, True, "Edited", f"{swap.services.engine or 'the engine'} draws")
    return condition(ACCEPTED, True, "Swapping", f"{swap.services.engine or 'the engine'} is being brought in")


def _over(status: controller_v1.RunStatus) -> list[Object]:
    state = status.state
    if state == controller_v1.RUN_STATE_SUCCEEDED:
        return [condition(COMPLETE, True, "Succeeded", status.message), condition(FAILED, False, "Succeeded")]
    if state in (controller_v1.RUN_STATE_FAILED, controller_v1.RUN_STATE_CANCELLED):
        reason = "Failed" if state == controller_v1.RUN_STATE_FAILED else "Cancelled"
        return [condition(FAILED, True, reason, status.message), condition(COMPLETE, False, reason)]
    return [condition(COMPLETE, False, "AtWork"), condition(FAILED, False, "AtWork")]


def _camel(reason: str) -> str:
    """`ImageMissing` of IMAGE_MISSING; what is in that form already stays."""
    if not reason.isupper():
        return reason[:1].upper() + reason[1:]
    return "".join(part.title() for part in reason.split("_"))
