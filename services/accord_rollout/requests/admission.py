"""How much work is waiting, and the limit above which no more is taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from accord.errors import ResourceExhausted


class Ticket:
    """The places that one request still holds."""

    def __init__(self, backlog: Admission, samples: int) -> None:
        self._backlog = backlog
        self.left = samples

    def done(self, samples: int = 1) -> None:
        """Gives places back."""
        self.left -= samples
        self._backlog.pending -= samples


class Admission:
    """Counts samples waiting and in work."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.pending = 0

    @contextmanager
    def admit(self, samples: int) -> Iterator[Ticket]:
        """Holds places for `samples` during the block. ResourceExhausted/OVERLOADED when the queue is full.

        A request larger than the limit is taken when nothing else waits: refused always, it could never be served.
        """
        if self.pending and self.pending + samples > self._limit:
            raise ResourceExhausted(
                f"{self.pending} samples are waiting and {samples} more would pass the limit of {self._limit}; "
                "repeat later or send fewer at once",
                reason="OVERLOADED",
                metadata={"pending_samples": str(self.pending), "limit": str(self._limit)},
            )
        self.pending += samples
        ticket = Ticket(self, samples)
        try:
            yield ticket
        finally:
            ticket.done(ticket.left)
