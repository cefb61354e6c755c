"""Converts google.rpc.Status to Accord's errors: the client's half of the error contract."""

from __future__ import annotations

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from accord import errors

# In a status without a reason these words mean that the transport broke, whatever code gRPC reports.
_BROKEN_TRANSPORT = ("RST_STREAM", "Stream removed", "GOAWAY", "Socket closed", "Connection reset", "Broken pipe")


def from_rpc_error(error: grpc.aio.AioRpcError, where: str) -> errors.AccordError:
    """The error that a service raised, or an error of the connection to it. `where`: address/Service/Rpc."""
    status = _details(error)
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    for detail in status.details:
        if not detail.Unpack(info):
            detail.Unpack(bad)
    if not info.reason:
        return _without_reason(error.code(), error.details() or "", where)
    cls = errors.BY_CODE.get(error.code(), errors.AccordError)
    violations = [errors.FieldViolation(v.field, v.description) for v in bad.field_violations]
    message = status.message or error.details() or info.reason
    return cls(message, reason=info.reason, metadata=info.metadata, violations=violations)


def _details(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The status in the trailers; empty if a service or a proxy sent none, or one that cannot be read."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def _without_reason(code: grpc.StatusCode, details: str, where: str) -> errors.AccordError:
    """An error of gRPC itself, or of a service that is not Accord's."""
    address, _, method = where.partition("/")
    metadata = {"address": address, "method": method}
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineExceeded(f"{address}: {method} did not answer within its deadline", metadata=metadata)
    if code is grpc.StatusCode.UNAVAILABLE:
        return errors.Unavailable(f"{address}: the service cannot be reached: {details}", metadata=metadata)
    if any(words in details for words in _BROKEN_TRANSPORT):
        return errors.Unavailable(
            f"{address}: the connection broke: {details}", reason="CONNECTION_BROKEN", metadata=metadata
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return errors.Unimplemented(
            f"{address}: {method}: the service does not have this call. It is older than this client, or a different "
            "service. Upgrade it, or use the client of its version",
            reason="UNKNOWN_CALL",
            metadata=metadata,
        )
    cls = errors.BY_CODE.get(code, errors.AccordError)
    return cls(f"{address}: {method}: {details or code.name}", metadata=metadata)
