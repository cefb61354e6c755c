"""Exclusive use of a service by one holder at a time, expiring by itself when the holder dies."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from accord.errors import FailedPrecondition, InvalidArgument
from accord.types import v1 as types_v1


@dataclass(frozen=True)
class _Held:
    holder: str
    token: str
    expires: float  # time.time() seconds


class LeaseTable:
    """At most one lease. A holder that asks again under its own name takes its lease over, so that a restarted
    controller need not wait for the lease that it lost to expire."""

    def __init__(self, max_ttl_seconds: float = 600, clock: Callable[[], float] = time.time) -> None:
        self._max_ttl_seconds = max_ttl_seconds
        self._clock = clock
        self._held: _Held | None = None

    def acquire(self, holder: str, ttl_seconds: float, token: str = "") -> types_v1.Lease:
        """Takes the lease, renews it (`token`), or raises FailedPrecondition LEASE_HELD naming who has it."""
        if ttl_seconds <= 0:
            raise InvalidArgument.at("ttl", "must be more than 0 seconds")
        held = self._in_force()
        if held and held.token != token and held.holder != holder:
            raise _is_held(held)
        renewed = held is not None and held.token == token
        token = token if renewed else secrets.token_urlsafe(16)
        self._held = _Held(holder, token, self._clock() + min(ttl_seconds, self._max_ttl_seconds))
        return _message(self._held, with_token=True)

    def release(self, token: str) -> None:
        """Ends the lease that `token` belongs to, if it is still in force."""
        if self._held and self._held.token == token:
            self._held = None

    def check(self, token: str) -> None:
        """Passes when no lease is in force or `token` is that lease's; else raises LEASE_HELD."""
        held = self._in_force()
        if held and held.token != token:
            raise _is_held(held)

    def current(self) -> types_v1.Lease | None:
        """The lease in force, its token left out."""
        held = self._in_force()
        return _message(held, with_token=False) if held else None

    def _in_force(self) -> _Held | None:
        if self._held and self._held.expires <= self._clock():
            self._held = None
        return self._held


def _is_held(held: _Held) -> FailedPrecondition:
    return FailedPrecondition(
        f"leased to {held.holder}: wait until it ends, or stop it",
        reason="LEASE_HELD",
        metadata={"holder": held.holder},
    )


def _message(held: _Held, *, with_token: bool) -> types_v1.Lease:
    expires = Timestamp()
    expires.FromMilliseconds(int(held.expires * 1000))
    return types_v1.Lease(holder=held.holder, token=held.token if with_token else "", expire_time=expires)
