"""reconcile is a pure function: each row of these tables is a situation and what must be done in it."""

from __future__ import annotations

import pytest

from accord.controller import v1 as controller_v1
from accord_controller.ledger.keys import STAGES
from accord_controller.runs.reconcile import (
    LONGEST_DELAY_SECONDS,
    MOST_RECOVERIES,
    Action,
    Cancel,
    DesiredState,
    Fail,
    Nothing,
    Observation,
    Pause,
    Recover,
    RunStage,
    StageFailure,
    Succeed,
    reconcile,
)

PREPARE, COLLECT = controller_v1.STAGE_PREPARE, controller_v1.STAGE_COLLECT
REWARD, POLICY, EVALUATE = controller_v1.STAGE_REWARD_MODEL, controller_v1.STAGE_POLICY, controller_v1.STAGE_EVALUATE
PREPARED = {0: frozenset({PREPARE})}
ONE_DONE = {**PREPARED, 1: frozenset(STAGES)}


def decide(observation: Observation, state: int = controller_v1.RUN_STATE_RUNNING, iterations: int = 2) -> Action:
    status = controller_v1.RunStatus(state=state)  # type: ignore[arg-type]
    return reconcile(controller_v1.RunSpec(iterations=iterations), status, observation)


@pytest.mark.parametrize(
    ("finished", "expected"),
    [
        ({}, RunStage(0, PREPARE)),
        (PREPARED, RunStage(1, COLLECT)),
        ({**PREPARED, 1: frozenset({COLLECT})}, RunStage(1, REWARD)),
        ({**PREPARED, 1: frozenset({COLLECT, REWARD})}, RunStage(1, POLICY)),
        ({**PREPARED, 1: frozenset({COLLECT, REWARD, POLICY})}, RunStage(1, EVALUATE)),
        (ONE_DONE, RunStage(2, COLLECT)),
        ({**ONE_DONE, 2: frozenset({COLLECT, REWARD})}, RunStage(2, POLICY)),
        ({**ONE_DONE, 2: frozenset(STAGES)}, Succeed()),
        # A stage that is missing in the middle is done before what comes after it.
        ({**PREPARED, 1: frozenset({COLLECT, POLICY})}, RunStage(1, REWARD)),
    ],
)
def test_the_first_stage_that_is_not_recorded_is_next(finished: dict[int, frozenset[int]], expected: Action) -> None:
    assert decide(Observation(finished=finished)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("iterations", [1, 3, 7])
def test_a_run_goes_through_every_stage_of_every_iteration_once(iterations: int) -> None:
    finished: dict[int, frozenset[controller_v1.Stage.ValueType]] = {}
    taken = []
    while isinstance(action := decide(Observation(finished=finished), iterations=iterations), RunStage):
        assert action not in taken
        taken.append(action)
        finished[action.iteration] = finished.get(action.iteration, frozenset()) | {action.stage}
    assert action == Succeed()
    assert len(taken) == 1 + 4 * iterations


@pytest.mark.parametrize(
    "state",
    [controller_v1.RUN_STATE_SUCCEEDED, controller_v1.RUN_STATE_FAILED, controller_v1.RUN_STATE_CANCELLED],
)
def test_an_ended_run_is_left_alone_whatever_is_desired(state: int) -> None:
    assert all(decide(Observation(desired=desired), state) == Nothing() for desired in DesiredState)


@pytest.mark.parametrize(("desired", "expected"), [(DesiredState.PAUSE, Pause()), (DesiredState.CANCEL, Cancel())])
def test_stopping_comes_before_work_and_before_failures(desired: DesiredState, expected: Action) -> None:
    assert decide(Observation(desired=desired)) == expected
    assert decide(Observation(desired=desired, failure=StageFailure("gone", True, 0))) == expected


def test_failures_are_recovered_from_with_growing_delays_up_to_a_bound() -> None:
    actions = [decide(Observation(failure=StageFailure("gone", True, count))) for count in range(MOST_RECOVERIES)]
    delays = [action.delay_seconds for action in actions if isinstance(action, Recover)]
    assert len(delays) == MOST_RECOVERIES
    assert delays == sorted(delays)
    assert delays[0] < delays[1]
    assert max(delays) <= LONGEST_DELAY_SECONDS
    assert isinstance(decide(Observation(failure=StageFailure("gone", True, MOST_RECOVERIES))), Fail)


def test_a_failure_that_stays_fails_the_run_at_once_with_its_message() -> None:
    assert decide(Observation(failure=StageFailure("wrong option", False, 0))) == Fail("wrong option")
