"""sync is a pure function: each row of these tables is an object, a run, and what must be done about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from accord.controller import v1 as controller_v1
from accord_controller.operator import resource
from accord_controller.operator.resource import Object
from accord_controller.operator.sync import (
    Accept,
    Action,
    Cancel,
    Create,
    CreateObject,
    Hold,
    Pause,
    Refuse,
    Remember,
    Resume,
    RewriteSpec,
    Update,
    is_settled,
    sync,
    sync_run,
)

DATA = Path("/data")
PENDING, RUNNING, PAUSED = (
    controller_v1.RUN_STATE_PENDING,
    controller_v1.RUN_STATE_RUNNING,
    controller_v1.RUN_STATE_PAUSED,
)
SUCCEEDED, FAILED = controller_v1.RUN_STATE_SUCCEEDED, controller_v1.RUN_STATE_FAILED
CANCELLED = controller_v1.RUN_STATE_CANCELLED
STATES = (PENDING, RUNNING, PAUSED, SUCCEEDED, FAILED, CANCELLED)
SUSPEND, UNSUSPEND = RewriteSpec({"suspend": True}), RewriteSpec({"suspend": None})


def body(
    engine: str = "transformers", *, suspend: bool = False, generation: int = 1, created: str = "2026-01-01T12:00:00Z"
) -> Object:
    """The object; a user who edits it makes its next generation."""
    spec: Object = {
        "model": "/data/models/tiny",
        "prompts": {"files": ["prompts.jsonl"]},
        "feedback": {"simulated": {"scorers": [{"name": "length"}]}},
        "rollout": {"engine": engine},
    }
    if suspend:
        spec["suspend"] = True
    meta = {"name": "demo", "uid": "u1", "generation": generation, "creationTimestamp": created}
    return {"metadata": meta, "spec": spec}


def run(
    state: int = RUNNING,
    engine: str = "transformers",
    *,
    interrupted: bool = False,
    swaps: int = 0,
    created: str = "2026-01-01T12:00:01Z",
) -> controller_v1.Run:
    """The controller's run of that name."""
    found = resource.run_of(body(engine), DATA)
    found.create_time.FromJsonString(created)
    found.status.state = state  # type: ignore[assignment]
    found.status.interrupted = interrupted
    for _ in range(swaps):
        found.status.swaps.add(state=controller_v1.SWAP_STATE_DONE)
    return found


def decide(obj: Object, found: controller_v1.Run | None, seen: int = 1) -> list[Action]:
    return sync(obj, resource.run_of(obj, DATA), found, seen)


def update(obj: Object) -> Update:
    return Update(resource.run_of(obj, DATA), f"u1.{obj['metadata']['generation']}")


def test_a_new_object_is_remembered_before_its_run_is_created_once_for_its_uid() -> None:
    new = body()
    assert decide(new, None, seen=0) == [Remember(), Create(resource.run_of(new, DATA), "u1")]


def test_no_run_is_created_for_an_object_that_is_suspended() -> None:
    assert decide(body(suspend=True), None, seen=0) == [Hold()]


EDITED = body("vllm", generation=2)


@pytest.mark.parametrize(
    ("obj", "found", "seen", "expected"),
    [
        # In agreement.
        (body(), run(PENDING), 0, [Accept()]),
        (body(), run(RUNNING), 1, [Accept()]),
        (body(), run(RUNNING, swaps=1), 1, []),  # the swap is the report
        (body(suspend=True), run(PAUSED), 1, [Accept()]),
        (body(), run(FAILED), 1, [Accept()]),  # not tried again by itself
        # The object was edited: it wins.
        (EDITED, run(RUNNING), 1, [update(EDITED)]),
        (EDITED, run(RUNNING, swaps=1), 1, [update(EDITED)]),
        (EDITED, run(RUNNING, "vllm"), 1, [Accept()]),
        (EDITED, run(PAUSED), 1, [update(EDITED), Resume()]),
        (EDITED, run(FAILED), 1, [update(EDITED), Resume()]),
        # The run was edited over gRPC: the object says so too.
        (body(), run(RUNNING, "vllm"), 1, [RewriteSpec(resource.edits_of(run(engine="vllm")))]),
        (body(), run(FAILED, "vllm"), 1, [RewriteSpec(resource.edits_of(run(engine="vllm")))]),
        # Both were edited: the object wins.
        (EDITED, run(RUNNING, "sglang", swaps=1), 1, [update(EDITED)]),
        # `suspend` was set or removed.
        (body(suspend=True, generation=2), run(PENDING), 1, [Accept(), Pause()]),
        (body(suspend=True, generation=2), run(RUNNING), 1, [Accept(), Pause()]),
        (body(suspend=True, generation=2), run(PAUSED), 1, [Accept()]),
        (body(suspend=True, generation=2), run(FAILED), 1, [Accept()]),
        (body(generation=2), run(PAUSED), 1, [Accept(), Resume()]),
        (body(generation=2), run(RUNNING), 1, [Accept()]),
        (body(generation=2), run(FAILED), 1, [Accept(), Resume()]),
        # The run was paused or resumed over gRPC.
        (body(), run(PAUSED), 1, [Accept(), SUSPEND]),
        (body(suspend=True), run(RUNNING), 1, [Accept(), UNSUSPEND]),
        (body(suspend=True), run(PENDING), 1, [Accept(), UNSUSPEND]),
        # It was edited and paused over gRPC.
        (body(), run(PAUSED, "vllm"), 1, [RewriteSpec(resource.edits_of(run(engine="vllm"))), SUSPEND]),
        # The controller ended while the run was active: it continues, unless its object is suspended.
        (body(), run(PAUSED, interrupted=True), 1, [Accept(), Resume()]),
        (body(suspend=True), run(PAUSED, interrupted=True), 1, [Accept()]),
        # The edit and the pause in one generation.
        (body("vllm", suspend=True, generation=2), run(RUNNING), 1,
         [update(body("vllm", suspend=True, generation=2)), Pause()]),
        # The operator was away for two edits.
        (body("vllm", generation=3), run(RUNNING), 1, [update(body("vllm", generation=3))]),
    ],
)  # fmt: skip
def test_the_last_edit_wins(obj: Object, found: controller_v1.Run, seen: int, expected: list[Action]) -> None:
    assert decide(obj, found, seen) == [Remember(), *expected]


@pytest.mark.parametrize("state", [SUCCEEDED, CANCELLED])
@pytest.mark.parametrize("suspend", [False, True])
def test_an_ended_run_is_neither_remembered_nor_paused_nor_resumed(state: int, suspend: bool) -> None:
    for generation in (1, 2):
        assert decide(body(suspend=suspend, generation=generation), run(state)) == [Accept()]
    # Its edit is refused by the controller, which says why.
    assert decide(body("vllm", generation=2), run(state)) == [update(body("vllm", generation=2))]


@pytest.mark.parametrize(
    ("state", "created", "refused"),
    [
        (CANCELLED, "2026-01-01T12:02:00Z", True),  # the object was deleted and created again, with another uid
        (CANCELLED, "2026-01-01T12:00:30Z", False),  # within what clocks differ by: cancelled over gRPC
        (SUCCEEDED, "2026-01-01T12:02:00Z", False),
        (RUNNING, "2026-01-01T12:02:00Z", False),  # started over gRPC, then applied
    ],
)
def test_an_object_whose_name_a_cancelled_run_has_is_refused(state: int, created: str, refused: bool) -> None:
    actions = decide(body(created=created), run(state), seen=0)
    if refused:
        (refusal,) = actions
        assert isinstance(refusal, Refuse)
        assert refusal.reason == "NAME_TAKEN"
        assert "demo" in refusal.message
    else:
        assert Accept() in actions


def test_after_its_actions_the_object_and_the_run_are_in_agreement() -> None:
    """Whatever both were, the second round only reports."""
    for state in STATES:
        for suspend in (False, True):
            for seen in (1, 2):
                for interrupted in (False, True):
                    obj, found = body(suspend=suspend, generation=2), run(state, interrupted=interrupted)
                    for action in decide(obj, found, seen):
                        apply(action, obj, found)
                    assert not set(map(type, decide(obj, found, seen=2))) - {Remember, Accept}, (state, suspend, seen)


def apply(action: Action, obj: Object, found: controller_v1.Run) -> None:
    match action:
        case Pause():
            found.status.state = PAUSED
        case Resume():
            found.status.state = RUNNING
        case RewriteSpec(patch):
            merged: dict[str, Any] = {**obj["spec"], **patch}
            obj["spec"] = {key: value for key, value in merged.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "suspend", "settled"),
    [
        (PENDING, False, False), (RUNNING, False, False), (RUNNING, True, False), (PAUSED, False, False),
        (PAUSED, True, True), (SUCCEEDED, False, True), (FAILED, False, True), (CANCELLED, True, True),
    ],
)  # fmt: skip
def test_nothing_is_awaited_for_a_run_that_is_paused_while_its_object_is_not_suspended(
    state: int, suspend: bool, settled: bool
) -> None:
    assert is_settled(body(suspend=suspend), run(state)) is settled


@pytest.mark.parametrize(
    ("state", "has", "had", "settled", "first", "expected"),
    [
        # Started over gRPC.
        (RUNNING, False, False, False, True, CreateObject()),
        (PAUSED, False, False, False, False, CreateObject()),
        (FAILED, False, False, False, True, CreateObject()),  # it can be resumed
        (SUCCEEDED, False, False, False, False, CreateObject()),  # it ended within one period
        (SUCCEEDED, False, False, False, True, None),  # it had ended before the operator started
        (CANCELLED, False, False, False, True, None),
        # It has an object.
        (RUNNING, True, False, False, True, None),
        (RUNNING, True, True, True, False, None),
        # Its object was deleted while the operator was away, or just now.
        (RUNNING, False, True, False, True, Cancel()),
        (PAUSED, False, True, True, False, Cancel()),
        (FAILED, False, True, True, False, Cancel()),
        (SUCCEEDED, False, True, True, False, None),
        (CANCELLED, False, True, True, False, None),
        (CANCELLED, False, False, True, False, None),
        # Its object was deleted, and cancelling it has been recorded.
        (RUNNING, False, False, True, False, None),
    ],
)
def test_a_run_without_an_object_gets_one_or_is_cancelled(
    state: int, has: bool, had: bool, settled: bool, first: bool, expected: Cancel | CreateObject | None
) -> None:
    assert sync_run(run(state), has_object=has, had_object=had, settled=settled, first=first) == expected
