"""Decides which errors may disappear when the services are restarted, their state is restored, and the stage is entered
again."""

from __future__ import annotations

from accord.errors import (
    AccordError,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    Unavailable,
)

# The launcher has already retried as often as makes sense.
_GIVEN_UP = frozenset({"SERVICE_FAILED", "SERVICE_KEEPS_DYING", "DATABASE_UNREACHABLE"})
# A restarted service has lost its in-memory state. Entering the stage again restores it.
_LOST_STATE = frozenset({"NO_WEIGHTS", "VERSION_MISMATCH", "MODEL_NOT_LOADED", "WRONG_PARENT", "LEASE_HELD"})
_LOST_THINGS = frozenset({"TRAINING_NOT_FOUND", "BATCH_NOT_FOUND", "UNKNOWN_TRAINING", "UNKNOWN_BATCH"})
_BUSY = frozenset({"OVERLOADED"})


def is_recoverable(error: AccordError) -> bool:
    """Whether a retry from the last durable point may help."""
    if isinstance(error, Unavailable):
        return error.reason not in _GIVEN_UP
    if isinstance(error, FailedPrecondition):
        return error.reason in _LOST_STATE
    if isinstance(error, NotFound):
        return error.reason in _LOST_THINGS
    if isinstance(error, ResourceExhausted):
        return error.reason in _BUSY
    return isinstance(error, DeadlineExceeded | Cancelled)
