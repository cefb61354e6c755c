"""Decides how to bring a Run object and the controller's run into agreement: a pure function of both.

Either can be changed: the object with kubectl, the run over gRPC. The last change wins. If the object's generation is
not the one last acted on, the last change was made to the object, otherwise to the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from accord.controller import v1 as controller_v1
from accord_controller.operator import resource
from accord_controller.operator.resource import Object

# States in which stages run or are about to run.
ACTIVE = (controller_v1.RUN_STATE_PENDING, controller_v1.RUN_STATE_RUNNING)
# States that a run never leaves; a failed run can be resumed.
FINAL = (controller_v1.RUN_STATE_SUCCEEDED, controller_v1.RUN_STATE_CANCELLED)
# A run that is at most this much older than its object may belong to it, because clocks differ.
SAME_AGE_SECONDS = 60.0


@dataclass(frozen=True)
class Refuse:
    """Report that this object cannot have a run, and wait until it is edited."""

    reason: str
    message: str


@dataclass(frozen=True)
class Hold:
    """Do not create a run while the object is suspended."""


@dataclass(frozen=True)
class Remember:
    """Record that this object has a run: if it is deleted while the operator is down, the run is cancelled later."""


@dataclass(frozen=True)
class Create:
    """Create the run."""

    run: controller_v1.Run
    request_id: str


@dataclass(frozen=True)
class Accept:
    """Report that the controller has the spec of the object."""


@dataclass(frozen=True)
class Update:
    """Edit the run's spec to match the object."""

    run: controller_v1.Run
    request_id: str


@dataclass(frozen=True)
class RewriteSpec:
    """Edit the object's spec to match the run (a merge patch)."""

    patch: Object


@dataclass(frozen=True)
class Pause:
    """Pause the run."""


@dataclass(frozen=True)
class Resume:
    """Resume the run."""


@dataclass(frozen=True)
class Cancel:
    """Cancel the run of a deleted object."""


@dataclass(frozen=True)
class CreateObject:
    """Create an object for a run that was started over gRPC."""


Action = Refuse | Hold | Remember | Create | Accept | Update | RewriteSpec | Pause | Resume


def sync(body: Object, wanted: controller_v1.Run, run: controller_v1.Run | None, seen_generation: int) -> list[Action]:
    """The actions for an object, in order. `wanted`: the Run that it describes; `run`: the controller's run with that
    name; `seen_generation`: the generation of the object last acted on."""
    if run is None:
        uid = body["metadata"]["uid"]
        return [Hold()] if resource.is_suspended(body) else [Remember(), Create(wanted, request_id=uid)]
    if _is_of_an_earlier_object(run, body):
        return [
            Refuse(
                "NAME_TAKEN",
                f"an earlier run named {run.run_id} was cancelled, and a cancelled run cannot be restarted. Give "
                "this run another name",
            )
        ]
    edited = body["metadata"]["generation"] != seen_generation
    remember: list[Action] = [] if run.status.state in FINAL else [Remember()]
    return [*remember, *_sync_spec(body, wanted, run, edited=edited), *_sync_state(body, run, edited=edited)]


def is_settled(body: Object, run: controller_v1.Run) -> bool:
    """Whether `sync` has nothing to do for a run that is not active until the object or the run is changed."""
    if run.status.state == controller_v1.RUN_STATE_PAUSED:
        return resource.is_suspended(body)
    return run.status.state not in ACTIVE


def sync_run(
    run: controller_v1.Run, *, has_object: bool, had_object: bool, settled: bool, first: bool
) -> Cancel | CreateObject | None:
    """The action for a run of the controller, whether or not it has an object now.

    `had_object`: an object of the run was remembered; `settled`: the run needs no object, or has had one since the
    operator started; `first`: this is the operator's first comparison, in which ended runs get no object.
    """
    final = run.status.state in FINAL
    if has_object:
        return None
    if had_object and not final:
        return Cancel()
    if settled or (final and first):
        return None
    return CreateObject()


def _is_of_an_earlier_object(run: controller_v1.Run, body: Object) -> bool:
    """Whether a cancelled run is older than the object, that is, was cancelled with an earlier object of that name."""
    created = datetime.fromisoformat(body["metadata"]["creationTimestamp"])
    age = created - run.create_time.ToDatetime(tzinfo=UTC)
    return age.total_seconds() > SAME_AGE_SECONDS and run.status.state == controller_v1.RUN_STATE_CANCELLED


def _sync_spec(body: Object, wanted: controller_v1.Run, run: controller_v1.Run, *, edited: bool) -> list[Action]:
    if not resource.differences(run.spec, wanted.spec):
        return [] if run.status.swaps else [Accept()]  # the state of the last swap is the report
    if edited:
        meta = body["metadata"]
        return [Update(wanted, request_id=f"{meta['uid']}.{meta['generation']}")]
    return [RewriteSpec(resource.edits_of(run))]


def _sync_state(body: Object, run: controller_v1.Run, *, edited: bool) -> list[Action]:
    state = run.status.state
    if resource.is_suspended(body):
        if state not in ACTIVE:
            return []
        return [Pause()] if edited else [RewriteSpec({resource.SUSPEND: None})]
    if state == controller_v1.RUN_STATE_PAUSED:
        # A run that was interrupted because its controller ended was not paused by a user.
        return [Resume()] if edited or run.status.interrupted else [RewriteSpec({resource.SUSPEND: True})]
    # A failed run is retried when its object is edited, not automatically.
    return [Resume()] if state == controller_v1.RUN_STATE_FAILED and edited else []
