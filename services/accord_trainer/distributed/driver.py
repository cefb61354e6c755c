"""Rank 0's part: it tells the others what to do, does the same, and compares how it ended."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from accord.errors import AccordError, Unavailable
from accord_trainer.distributed.executor import Command
from accord_trainer.distributed.process_group import ProcessGroup, breaks, rank_lost
from accord_trainer.distributed.rank_result import Outcome, explain

log = logging.getLogger(__name__)
T = TypeVar("T")

# For the answer to reach the caller, before the process ends.
GRACE_SECONDS = 2.0
EXIT_CODE = 70


class DriverExecutor:
    """An executor for several ranks. When a rank is lost, the step fails and the process ends with a nonzero code, so
    that torchrun (or another supervisor) restarts all ranks from the last checkpoint."""

    def __init__(self, ranks: ProcessGroup, end: Callable[[], None] | None = None) -> None:
        self._ranks = ranks
        self._end = end or _end_soon
        self._lost: Unavailable | None = None

    def together(self, order: Command, work: Callable[[], T], check: Callable[[T], str] = lambda _: "") -> T:
        if self._lost is not None:
            raise self._lost
        try:
            self._ranks.order(order.to_bytes())
        except AccordError as error:
            raise self._lose(error) from error
        try:
            result = work()
        except Exception as error:
            if breaks(error):
                raise self._lose(error) from error
            told = self._compare(Outcome.of(error))
            if isinstance(error, AccordError) and error.reason == "OTHER_RANK":
                raise next(found for found in told if found.reason != "OTHER_RANK").error() from error
            raise
        self._compare(Outcome(check=check(result)))
        return result

    def close(self) -> None:
        """Tells the others to end."""
        if self._lost is None:
            try:
                self._ranks.order(Command("end").to_bytes())
            except AccordError as error:
                log.info("the other ranks had ended: %s", error)

    def _compare(self, own: Outcome) -> list[Outcome]:
        """How it ended on all ranks; where not alike, their weights may differ from now on, and nothing can go on."""
        try:
            told = [Outcome.from_bytes(data) for data in self._ranks.exchange(own.to_bytes())]
        except AccordError as error:
            raise self._lose(error) from error
        unlike = explain(told)
        if unlike:
            raise self._lose(rank_lost(RuntimeError(f"the ranks came to different ends: {unlike}")))
        return told

    def _lose(self, error: Exception) -> Unavailable:
        self._lost = error if isinstance(error, Unavailable) else rank_lost(error)
        log.error("%s", self._lost.message)
        self._end()
        return self._lost


def _end_soon() -> None:
    """The hard way: what waits for a rank that is gone cannot be asked to stop."""
    timer = threading.Timer(GRACE_SECONDS, lambda: os._exit(EXIT_CODE))
    timer.daemon = True
    timer.start()
