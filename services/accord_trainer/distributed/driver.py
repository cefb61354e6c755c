"""The executor of rank 0: sends each command to the other ranks, runs it on rank 0, and compares the results."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from accord.errors import AccordError, Unavailable
from accord_trainer.distributed.executor import Command, RankResult, differences
from accord_trainer.distributed.process_group import ProcessGroup, breaks, rank_lost

log = logging.getLogger(__name__)
T = TypeVar("T")

# Time for the answer to reach the caller before the process ends.
GRACE_SECONDS = 2.0
EXIT_CODE = 70


class DriverExecutor:
    """An Executor over several ranks. When a rank is lost, the step fails and the process exits with a nonzero code, so
    that torchrun (or another supervisor) restarts all ranks from the last checkpoint."""

    def __init__(self, ranks: ProcessGroup, exit_process: Callable[[], None] | None = None) -> None:
        self._ranks = ranks
        self._exit_process = exit_process or _exit_soon
        self._lost: Unavailable | None = None

    def run(self, command: Command, work: Callable[[], T], check: Callable[[T], str] = lambda _: "") -> T:
        if self._lost is not None:
            raise self._lost
        try:
            self._ranks.broadcast_command(command.to_bytes())
        except AccordError as error:
            raise self._lose(error) from error
        try:
            result = work()
        except Exception as error:
            if breaks(error):
                raise self._lose(error) from error
            results = self._compare(RankResult.of(error))
            if isinstance(error, AccordError) and error.reason == "OTHER_RANK":
                raise next(result for result in results if result.reason != "OTHER_RANK").error() from error
            raise
        self._compare(RankResult(check=check(result)))
        return result

    def close(self) -> None:
        """Shuts the other ranks down."""
        if self._lost is None:
            try:
                self._ranks.broadcast_command(Command("shutdown").to_bytes())
            except AccordError as error:
                log.info("The other ranks had already ended: %s", error)

    def _compare(self, own: RankResult) -> list[RankResult]:
        """The results of all ranks. If they differ, the ranks' weights may differ too, and training cannot continue."""
        try:
            results = [RankResult.from_bytes(data) for data in self._ranks.all_gather(own.to_bytes())]
        except AccordError as error:
            raise self._lose(error) from error
        if different := differences(results):
            raise self._lose(rank_lost(RuntimeError(f"the ranks returned different results: {different}")))
        return results

    def _lose(self, error: Exception) -> Unavailable:
        self._lost = error if isinstance(error, Unavailable) else rank_lost(error)
        log.error("%s", self._lost.message)
        self._exit_process()
        return self._lost


def _exit_soon() -> None:
    """Ends the process without cleanup: a thread that waits for a lost rank cannot be interrupted."""
    timer = threading.Timer(GRACE_SECONDS, lambda: os._exit(EXIT_CODE))
    timer.daemon = True
    timer.start()
