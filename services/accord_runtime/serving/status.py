"""Errors as google.rpc.Status: the one place where an exception becomes a gRPC status."""

from __future__ import annotations

import asyncio
import errno
import logging

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from accord import errors

log = logging.getLogger(__name__)


def as_accord_error(error: BaseException) -> errors.AccordError:
    """The error that the caller receives: Accord's own unchanged, a full disk as DISK_FULL, all others as INTERNAL."""
    if isinstance(error, errors.AccordError):
        return error
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return errors.DeadlineExceeded(
            "the deadline passed. Repeat the call with the same request_id to get its result"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.ResourceExhausted(
            f"no space left for {error.filename or 'a file'}. Free some space and repeat the call", reason="DISK_FULL"
        )
    log.error("unexpected error", exc_info=error)
    return errors.Internal(
        f"{type(error).__name__}: {error}. See the traceback in the service's log", reason="UNEXPECTED"
    )


def to_status(error: errors.AccordError) -> grpc.Status:
    """The gRPC status of an error, with ErrorInfo and, for invalid fields, BadRequest."""
    status = status_pb2.Status(code=_number(error.code), message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=errors.DOMAIN, metadata=error.metadata)
    status.details.add().Pack(info)
    if error.violations:
        bad = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad.field_violations.add(field=violation.field, description=violation.description)
        status.details.add().Pack(bad)
    converted: grpc.Status = rpc_status.to_status(status)
    return converted


def _number(code: grpc.StatusCode) -> int:
    number: int = code_pb2.Code.Value(code.name)
    return number
