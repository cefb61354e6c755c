"""The other ranks' part: to do what rank 0 says until it says `end`, or is gone."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from accord.errors import AccordError, Internal
from accord.trainer import v1 as trainer_v1
from accord_trainer.distributed.executor import Command, batch_of
from accord_trainer.distributed.process_group import ProcessGroup, breaks, rank_lost
from accord_trainer.distributed.rank_result import Outcome
from accord_trainer.trainings.loading import LoadRequest, TrainingLoader, fetch_weights
from accord_trainer.trainings.training import LoadedTraining

log = logging.getLogger(__name__)


class RankWorker:
    """Holds this rank's part of the trainings that rank 0 has in memory. `cache`: where fetched weights go."""

    def __init__(self, ranks: ProcessGroup, bench: TrainingLoader, cache: Path) -> None:
        self._ranks = ranks
        self._bench = bench
        self._cache = cache
        self._live: dict[str, LoadedTraining] = {}

    def run(self) -> None:
        """Returns at `end`. Unavailable, RANK_LOST, when another rank is gone: then all must be started again."""
        while True:
            order = Command.from_bytes(self._ranks.order())
            if order.kind == "end":
                return
            try:
                outcome = Outcome(check=self.obey(order))
            except Exception as error:
                if breaks(error):
                    raise error if isinstance(error, AccordError) else rank_lost(error) from error
                log.warning("%s of %s: %s", order.kind, order.training_id, error, exc_info=not _known(error))
                outcome = Outcome.of(error)
            self._ranks.exchange(outcome.to_bytes())

    def obey(self, order: Command) -> str:
        """Does the work; gives what must be the same on all ranks."""
        if order.kind == "open":
            live = self._open(order)
            self._live[order.training_id] = live
            return live.record.digest
        live = self._live[order.training_id]
        if order.kind == "step":
            request = trainer_v1.StepRequest.FromString(order.messages[0])
            return live.step(request, batch_of(order.messages[1])).digest
        if order.kind == "evaluate":
            live.evaluate(batch_of(order.messages[0]))
        elif order.kind == "publish":
            live.publish(order.fields["format"], order.fields["scheme"])
        elif order.kind == "checkpoint":
            live.checkpoint()
        elif order.kind == "retire":
            live.retire()
            del self._live[order.training_id]
        elif order.kind == "forget":
            del self._live[order.training_id]
        else:
            raise Internal(f"rank 0 gave an order that is not known here: {order.kind}")
        return ""

    def _open(self, order: Command) -> LoadedTraining:
        opening = LoadRequest.of(order, self._bench.root)
        folders = asyncio.run(fetch_weights(opening.training, self._cache))
        return self._bench.open(opening, folders, check_stopped=lambda: None)


def _known(error: Exception) -> bool:
    return isinstance(error, AccordError)
