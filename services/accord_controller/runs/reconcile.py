"""What a run does next: a pure function of its spec, its status and what is observed.

The same function serves every launcher: it knows no process, no clock and no network.
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
    """What the user wants of a run now."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


@dataclass(frozen=True)
class StageFailure:
    """What stopped the last stage, whether a retry can help, and how many retries made no progress."""

    message: str
    recoverable: bool
    recoveries: int


@dataclass(frozen=True)
class Observation:
    """What is observed: the stages recorded as finished, what the user wants, what went wrong."""

    # The stages with a result in the ledger, by iteration (0: preparation).
    finished: Mapping[int, frozenset[controller_v1.Stage.ValueType]] = field(default_factory=dict)
    desired: DesiredState = DesiredState.RUN
    failure: StageFailure | None = None


@dataclass(frozen=True)
class RunStage:
    """Run a stage, from where the ledger says it is."""

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
