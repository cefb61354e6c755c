"""Limits the samples that wait or are being generated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from accord.errors import ResourceExhausted


class Ticket:
    """The places that one request still holds."""

    def __init__(self, admission: Admission, samples: int) -> None:
        self._admission = admission
        self.left = samples

    def done(self, samples: int = 1) -> None:
        """Releases places."""
        self.left -= samples
        self._admission.pending -= samples


class Admission:
    """Counts the samples that wait or are being generated."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.pending = 0

    @contextmanager
    def admit(self, samples: int) -> Iterator[Ticket]:
        """Reserves places for `samples` during the block. ResourceExhausted/OVERLOADED if the queue is full.

        A request larger than the limit is admitted when nothing else waits; otherwise it could never be served.
        """
        if self.pending and self.pending + samples > self._limit:
            raise ResourceExhausted(
                f"{self.pending} samples are waiting and {samples} more would exceed the limit of {self._limit}; "
                "retry later, or send fewer at once",
                reason="OVERLOADED",
                metadata={"pending_samples": str(self.pending), "limit": str(self._limit)},
            )
        self.pending += samples
        ticket = Ticket(self, samples)
        try:
            yield ticket
        finally:
            ticket.done(ticket.left)
