"""A training into memory: the same on every rank."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_runtime.artifacts.fetch import fetch
from accord_trainer.algorithm import Start
from accord_trainer.distributed.executor import Command, Executor, InProcessExecutor
from accord_trainer.distributed.world import World, leads
from accord_trainer.model.flops import Speed, peak_flops
from accord_trainer.model.memory_budget import free_bytes
from accord_trainer.trainings.checkpoints import CheckpointStore
from accord_trainer.trainings.history import Manifest, TrainingHistory
from accord_trainer.trainings.publisher import Publisher
from accord_trainer.trainings.rollback import Place, Rollback
from accord_trainer.trainings.training import LoadedTraining, build_algorithm, new_manifest, verify_restored

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadRequest:
    """What must be known to open a training: how it is computed, and the version to restore (0: none)."""

    training: trainer_v1.Training
    # None for a new one.
    known: Manifest | None
    compute_dtype: str
    compute_threads: int
    version: int

    def order(self) -> Command:
        """For the other ranks, which read the manifest of a known training from the disk."""
        fields = {
            "known": self.known is not None,
            "compute_dtype": self.compute_dtype,
            "compute_threads": self.compute_threads,
            "version": self.version,
        }
        return Command("open", self.training.training_id, fields, (self.training.SerializeToString(),))

    @classmethod
    def of(cls, order: Command, root: Path) -> LoadRequest:
        """What rank 0 ordered. DataLoss for a damaged manifest below `root`."""
        known = Manifest.read(root / order.training_id / "training.json") if order.fields["known"] else None
        fields = {**order.fields, "known": known}
        return cls(training=trainer_v1.Training.FromString(order.messages[0]), **fields)


@dataclass(frozen=True)
class TrainingLoader:
    """Where trainings are opened. `root` holds their folders; with several ranks it lies on a disk that all share."""

    root: Path
    publisher: Publisher
    world: World
    device: torch.device
    # What a step may take beyond the loaded models; None: what is free as it begins.
    memory_bytes: int | None = None
    # Operations a second that one device can do at most; None: as its name says, where it is known.
    peak_flops: float | None = None
    undo: Place = "memory"

    def speed(self) -> Speed:
        """That of all ranks."""
        peak = self.peak_flops or peak_flops(self.device)
        return Speed(self.device, peak * self.world.size if peak else None)

    def free_bytes(self) -> int:
        """What a step may take now; rank 0 looks for all."""
        if not leads(self.world):
            return sys.maxsize
        return free_bytes(self.device) if self.memory_bytes is None else self.memory_bytes

    def checkpoints(self, training_id: str) -> CheckpointStore:
        """The checkpoints of a training."""
        return CheckpointStore(self.root / training_id / "checkpoints", self.world)

    def open(
        self,
        opening: LoadRequest,
        folders: dict[str, Path],
        check_stopped: Callable[[], None],
        team: Executor | None = None,
    ) -> LoadedTraining:
        """The training, restored and verified; a new one's manifest is written."""
        training = opening.training
        start = Start(
            init=folders["init"],
            reference=folders.get("reference"),
            critic=folders.get("critic_init"),
            reference_is_init=not training.HasField("reference") or training.reference.digest == training.init.digest,
            seed=training.seed,
            compute_dtype=opening.compute_dtype,
            world=self.world,
            device=self.device,
        )
        torch.manual_seed(training.seed % 2**63)
        algorithm = build_algorithm(training, start)
        manifest = opening.known or new_manifest(
            training, algorithm, compute_dtype=opening.compute_dtype, compute_threads=opening.compute_threads
        )
        checkpoints = self.checkpoints(training.training_id)
        if leads(self.world):
            checkpoints.remove_unfinished()
            if opening.known is None:
                manifest.write(self.root / training.training_id / "training.json")
        record = TrainingHistory(0, manifest.digest, {0: manifest.digest})
        if opening.version:
            record = TrainingHistory.from_json(checkpoints.record(opening.version))
        live = LoadedTraining(
            manifest,
            record,
            algorithm,
            checkpoints,
            self.publisher,
            check_stopped,
            team or InProcessExecutor(),
            self.free_bytes,
            self.speed(),
            Rollback(self.undo),
        )
        if opening.version:
            live.restore(opening.version)
            log.info("%s: restored version %d", training.training_id, opening.version)
        verify_restored(live, self.root / training.training_id)
        return live


async def fetch_weights(training: trainer_v1.Training, cache: Path) -> dict[str, Path]:
    """The folders of the weights that the training names, verified."""
    refs: dict[str, types_v1.WeightsRef] = {"init": training.init}
    if training.HasField("reference"):
        refs["reference"] = training.reference
    if training.HasField("critic_init"):
        refs["critic_init"] = training.critic_init
    return {name: await fetch(ref, cache) for name, ref in refs.items()}
