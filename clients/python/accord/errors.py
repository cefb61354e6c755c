"""One exception tree for services and clients: each class has a gRPC code, each error a reason.

A service raises one of these; the serving interceptor turns it into a google.rpc.Status (ErrorInfo with reason and
metadata, BadRequest with the fields); the SDK turns that status back into the same class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import grpc

DOMAIN = "accord.dev"


@dataclass(frozen=True)
class FieldViolation:
    """A wrong request field: its path (`run.spec.model`, `items[3].response`) and the problem."""

    field: str
    description: str


class AccordError(Exception):
    """An error, for people (`str(error)`) and for programs (`code`, `reason`, `metadata`)."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    reason: str = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)


class InvalidArgument(AccordError):
    """The request is wrong in any state of the service. `violations` names the fields."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"

    @classmethod
    def at(cls, field: str, description: str, *, reason: str | None = None) -> Self:
        """The error for one wrong field."""
        return cls(f"{field}: {description}", reason=reason, violations=[FieldViolation(field, description)])


class NotFound(AccordError):
    """The requested object does not exist."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"


class AlreadyExists(AccordError):
    """The object already exists with different content."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class FailedPrecondition(AccordError):
    """The service is not in the required state; repeating the request unchanged does not help."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class Aborted(AccordError):
    """Another client changed the object in the meantime: read it again and retry."""

    code = grpc.StatusCode.ABORTED
    reason = "ABORTED"


class ResourceExhausted(AccordError):
    """A limit is reached: a full queue, a full disk, a message that is too large."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"


class PermissionDenied(AccordError):
    """The caller may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class Unauthenticated(AccordError):
    """The caller is not authenticated."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class Unavailable(AccordError):
    """The service cannot be reached or is draining; retry later."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"


class DeadlineExceeded(AccordError):
    """The response did not arrive in time; with the same request_id the call can be repeated."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class Cancelled(AccordError):
    """The caller cancelled the call."""

    code = grpc.StatusCode.CANCELLED
    reason = "CANCELLED"


class OutOfRange(AccordError):
    """The position is past the end of the data."""

    code = grpc.StatusCode.OUT_OF_RANGE
    reason = "OUT_OF_RANGE"


class Unimplemented(AccordError):
    """The service does not implement this call or option."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"


class DataLoss(AccordError):
    """Stored data is damaged."""

    code = grpc.StatusCode.DATA_LOSS
    reason = "DATA_LOSS"


class Internal(AccordError):
    """An error in the service itself; its log has the traceback."""

    code = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"


BY_CODE: Mapping[grpc.StatusCode, type[AccordError]] = {
    cls.code: cls
    for cls in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        Aborted,
        ResourceExhausted,
        PermissionDenied,
        Unauthenticated,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        OutOfRange,
        Unimplemented,
        DataLoss,
        Internal,
    )
}
