"""docs/retries.md: its budgets and bounds are those of the code."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

import accord
from accord.controller import v1 as controller_v1
from accord.errors import Unavailable
from accord.replicas import client as replicas_client
from accord_controller.clients import autoscaler, repair, replica_set, service_clients
from accord_controller.launchers.kubernetes import launcher as kubernetes_launcher
from accord_controller.launchers.local import launcher as local_launcher
from accord_controller.runs import reconcile
from accord_controller.runs.recoverable import is_recoverable
from accord_controller.stages import sampling, scoring

PAGE = (Path(__file__).parents[2] / "docs" / "retries.md").read_text(encoding="utf-8")


def recovery_delays() -> list[float]:
    """The waits before each new entry of a stage that makes no progress, as reconcile decides them."""
    delays: list[float] = []
    while True:
        observed = reconcile.Observation(failure=reconcile.StageFailure("gone", True, len(delays)))
        action = reconcile.reconcile(controller_v1.RunSpec(iterations=1), controller_v1.RunStatus(), observed)
        if not isinstance(action, reconcile.Recover):
            return delays
        delays.append(action.delay_seconds)


CALL = service_clients.RETRY.attempts
REPLICA_CALL = replicas_client._QUICKLY.attempts
# A replica rests after each failure, and the call ends when the patience is over.
ASSIGNMENTS = math.ceil(replica_set.PATIENCE_SECONDS / replica_set.REST_SECONDS)
ENTRIES = 1 + len(recovery_delays())

TABLES = {
    "SDK call of a client with the default policy": accord.RetryPolicy().attempts,
    "SDK call of the controller to the reward, preference or trainer service": CALL,
    "SDK call within dispatch, to one replica": REPLICA_CALL,
    "assignments of a sample to one replica without progress": ASSIGNMENTS,
    "requests for failed samples": sampling.TRIES,
    "requests for failed scores": scoring.TRIES,
    "entries of a stage without progress": ENTRIES,
    "restarts of a service within 10 minutes": local_launcher.MOST_RESTARTS,
    "calls to a reward, preference or trainer service that stays unavailable": CALL * ENTRIES,
    "`Generate` calls to a replica that stays unavailable": REPLICA_CALL * ASSIGNMENTS * ENTRIES,
    "requests for a sample that the engine keeps failing, if all samples fail": sampling.TRIES * ENTRIES,
    "`Generate` calls to a replica that mixes both failures in the worst way": (
        REPLICA_CALL * ASSIGNMENTS * sampling.TRIES * ENTRIES
    ),
    "seconds that the run waits between stage entries, in all": sum(recovery_delays()),
}


def test_the_page_has_the_budgets_and_bounds_of_the_code() -> None:
    rows = dict(re.findall(r"(?m)^\| (.+?) \| ([\d.]+) \|$", PAGE))
    assert {name: float(number) for name, number in rows.items()} == TABLES


def test_the_times_of_the_page_are_those_of_the_code() -> None:
    delays = recovery_delays()
    assert f"{delays[0]:g}, {delays[1]:g}, {delays[2]:g}, ... at most {max(delays):g} seconds" in PAGE.replace(
        "\n", " "
    )
    assert replica_set.REST_SECONDS == 1, "'rests for a second'"
    assert f"{replica_set.PATIENCE_SECONDS:g} seconds." in PAGE
    assert f"{repair.AGAIN_SECONDS:g} seconds after a" in PAGE
    assert f"{autoscaler.AGAIN_SECONDS:g} seconds after a failed change" in PAGE
    assert local_launcher.WINDOW_SECONDS == 600, "'within 10 minutes'"
    assert kubernetes_launcher.MOST_RESTARTS == local_launcher.MOST_RESTARTS, "'after as many restarts'"


@pytest.mark.parametrize("reason", ["SERVICE_FAILED", "SERVICE_KEEPS_DYING", "DATABASE_UNREACHABLE"])
def test_what_was_retried_elsewhere_is_not_retried_by_the_run(reason: str) -> None:
    assert reason in PAGE
    assert not is_recoverable(Unavailable("gone", reason=reason))
