"""Decides what a run does next: a pure function of its spec, its status and the observations.

The same function works for every launcher: it does not depend on processes, the clock or the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from accord.controller import v1 as controller_v1
from accord_controller.ledger.keys import ENDED, STAGES

MOST_RECOVERIES = 6
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 15.0


class DesiredState(Enum):
    """The state that the user wants for a run."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


@dataclass(frozen=True)
class StageFailure:
    """The failure of the last stage, whether a retry can help, and how many retries made no progress."""

    message: str
    recoverable: bool
    recoveries: int


@dataclass(frozen=True)
class Observation:
    """The observations: the stages recorded as finished, the state that the user wants, and the last failure."""

    # The stages with a result in the ledger, by iteration (0: preparation).
    finished: Mapping[int, frozenset[controller_v1.Stage.ValueType]] = field(default_factory=dict)
    desired: DesiredState = DesiredState.RUN
    failure: StageFailure | None = None


@dataclass(frozen=True)
class RunStage:
    """Run a stage from the point that the ledger records."""

    iteration: int
    stage: controller_v1.Stage.ValueType


@dataclass(frozen=True)
class Recover:
    """Wait, restart dead services, then observe again."""

    delay_seconds: float
    message: str


@dataclass(frozen=True)
class Fail:
    """End the run as failed."""

    message: str


@dataclass(frozen=True)
class Pause:
    """Stop here; ResumeRun continues."""


@dataclass(frozen=True)
class Cancel:
    """End the run for good."""


@dataclass(frozen=True)
class Succeed:
    """End the run as succeeded."""


@dataclass(frozen=True)
class Nothing:
    """The run has ended."""


Action = RunStage | Recover | Fail | Pause | Cancel | Succeed | Nothing


def reconcile(spec: controller_v1.RunSpec, status: controller_v1.RunStatus, observation: Observation) -> Action:
    """The next action. `spec` is the resolved one."""
    if status.state in ENDED:
        return Nothing()
    if observation.desired is DesiredState.CANCEL:
        return Cancel()
    if observation.desired is DesiredState.PAUSE:
        return Pause()
    if observation.failure is not None:
        return _after(observation.failure)
    if controller_v1.STAGE_PREPARE not in observation.finished.get(0, frozenset()):
        return RunStage(0, controller_v1.STAGE_PREPARE)
    for iteration in range(1, spec.iterations + 1):
        done = observation.finished.get(iteration, frozenset())
        for stage in STAGES:
            if stage not in done:
                return RunStage(iteration, stage)
    return Succeed()


def _after(failure: StageFailure) -> Action:
    if not failure.recoverable:
        return Fail(failure.message)
    if failure.recoveries >= MOST_RECOVERIES:
        return Fail(f"{failure.message} ({failure.recoveries} retries made no progress)")
    delay = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2**failure.recoveries)
    return Recover(delay, failure.message)
