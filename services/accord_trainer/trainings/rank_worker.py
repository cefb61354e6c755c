"""The loop of every rank except rank 0: runs the commands of rank 0 until `shutdown`, or until rank 0 exits."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from accord.errors import AccordError, Internal
from accord.trainer import v1 as trainer_v1
from accord_trainer.distributed.executor import Command, RankResult
from accord_trainer.distributed.process_group import ProcessGroup, breaks, rank_lost
from accord_trainer.trainings.batches import batch_of
from accord_trainer.trainings.loading import LoadRequest, TrainingLoader, fetch_weights
from accord_trainer.trainings.training import LoadedTraining

log = logging.getLogger(__name__)


class RankWorker:
    """Holds this rank's part of the trainings that rank 0 has loaded. `cache` is the folder for fetched weights."""

    def __init__(self, ranks: ProcessGroup, loader: TrainingLoader, cache: Path) -> None:
        self._ranks = ranks
        self._loader = loader
        self._cache = cache
        self._loaded: dict[str, LoadedTraining] = {}

    def run(self) -> None:
        """Returns at `shutdown`. Unavailable, RANK_LOST, if another rank exited; all ranks must then be restarted."""
        while True:
            command = Command.from_bytes(self._ranks.broadcast_command())
            if command.kind == "shutdown":
                return
            try:
                result = RankResult(check=self.execute(command))
            except Exception as error:
                if breaks(error):
                    raise error if isinstance(error, AccordError) else rank_lost(error) from error
                log.warning("%s of %s: %s", command.kind, command.training_id, error, exc_info=not _known(error))
                result = RankResult.of(error)
            self._ranks.all_gather(result.to_bytes())

    def execute(self, command: Command) -> str:
        """Runs a command; returns the string that must be equal on all ranks."""
        if command.kind == "load":
            training = self._load(command)
            self._loaded[command.training_id] = training
            return training.history.digest
        training = self._loaded[command.training_id]
        if command.kind == "step":
            request = trainer_v1.StepRequest.FromString(command.messages[0])
            return training.step(request, batch_of(command.messages[1])).digest
        if command.kind == "evaluate":
            training.evaluate(batch_of(command.messages[0]))
        elif command.kind == "publish":
            training.publish(command.fields["format"], command.fields["scheme"])
        elif command.kind == "checkpoint":
            training.checkpoint()
        elif command.kind == "unload":
            training.unload()
            del self._loaded[command.training_id]
        elif command.kind == "discard":
            del self._loaded[command.training_id]
        else:
            raise Internal(f"rank 0 sent an unknown command: {command.kind}")
        return ""

    def _load(self, command: Command) -> LoadedTraining:
        request = LoadRequest.of(command, self._loader.root)
        folders = asyncio.run(fetch_weights(request.training, self._cache))
        return self._loader.load(request, folders, check_stopped=lambda: None)


def _known(error: Exception) -> bool:
    return isinstance(error, AccordError)
