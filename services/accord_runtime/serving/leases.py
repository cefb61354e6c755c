"""Exclusive use of a service by one holder at a time. If its holder dies, the lease expires."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from accord.errors import FailedPrecondition, InvalidArgument
from accord.types import v1 as types_v1


@dataclass(frozen=True)
class _Lease:
    holder: str
    token: str
    expires: float  # time.time() seconds


class LeaseTable:
    """At most one lease. A holder that acquires it again under the same name takes over its lease, so that a restarted
    controller does not wait for its lost lease to expire."""

    def __init__(self, max_ttl_seconds: float = 600, clock: Callable[[], float] = time.time) -> None:
        self._max_ttl_seconds = max_ttl_seconds
        self._clock = clock
        self._lease: _Lease | None = None

    def acquire(self, holder: str, ttl_seconds: float, token: str = "") -> types_v1.Lease:
        """Acquires the lease or renews it (`token`). FailedPrecondition, LEASE_HELD, names its holder."""
        if ttl_seconds <= 0:
            raise InvalidArgument.at("ttl", "must be above 0 seconds")
        current = self._active()
        if current and current.token != token and current.holder != holder:
            raise _is_held(current)
        renewed = current is not None and current.token == token
        token = token if renewed else secrets.token_urlsafe(16)
        self._lease = _Lease(holder, token, self._clock() + min(ttl_seconds, self._max_ttl_seconds))
        return _message(self._lease, with_token=True)

    def release(self, token: str) -> None:
        """Ends the lease with this token, if it is still active."""
        if self._lease and self._lease.token == token:
            self._lease = None

    def check(self, token: str) -> None:
        """FailedPrecondition, LEASE_HELD, unless no lease is active or the active one has this token."""
        current = self._active()
        if current and current.token != token:
            raise _is_held(current)

    def current(self) -> types_v1.Lease | None:
        """The active lease without its token."""
        current = self._active()
        return _message(current, with_token=False) if current else None

    def _active(self) -> _Lease | None:
        if self._lease and self._lease.expires <= self._clock():
            self._lease = None
        return self._lease


def _is_held(lease: _Lease) -> FailedPrecondition:
    return FailedPrecondition(
        f"the service is in use by {_described(lease.holder)}",
        reason="LEASE_HELD",
        metadata={"holder": lease.holder},
    )


def _described(holder: str) -> str:
    """The holder, and how to end its use of the service."""
    kind, _, run = holder.partition("/")
    if kind == "runs" and run:
        return f"run {run}. Wait until it ends, or pause it: accord runs pause {run}"
    return f"{holder}. Wait until it ends, or stop it"


def _message(lease: _Lease, *, with_token: bool) -> types_v1.Lease:
    expires = Timestamp()
    expires.FromMilliseconds(int(lease.expires * 1000))
    return types_v1.Lease(holder=lease.holder, token=lease.token if with_token else "", expire_time=expires)
