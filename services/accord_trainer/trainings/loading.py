"""Loads a training into memory, in the same way on every rank."""

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
from accord_trainer.trainings.checkpoints import CheckpointStore
from accord_trainer.trainings.device_speed import Speed, peak_flops
from accord_trainer.trainings.history import Manifest, TrainingHistory
from accord_trainer.trainings.memory_budget import free_bytes
from accord_trainer.trainings.publisher import Publisher
from accord_trainer.trainings.training import (
    LoadedTraining,
    Rollback,
    RollbackPlace,
    build_algorithm,
    new_manifest,
    verify_restored,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadRequest:
    """The training to load, its compute settings, and the version to restore (0: none)."""

    training: trainer_v1.Training
    # None for a new training.
    manifest: Manifest | None
    compute_dtype: str
    compute_threads: int
    version: int

    def command(self) -> Command:
        """For the other ranks, which read the manifest of an existing training from the disk."""
        fields = {
            "exists": self.manifest is not None,
            "compute_dtype": self.compute_dtype,
            "compute_threads": self.compute_threads,
            "version": self.version,
        }
        return Command("load", self.training.training_id, fields, (self.training.SerializeToString(),))

    @classmethod
    def of(cls, command: Command, root: Path) -> LoadRequest:
        """The request in rank 0's command. DataLoss for a damaged manifest below `root`."""
        fields = dict(command.fields)
        exists = fields.pop("exists")
        manifest = Manifest.read(root / command.training_id / "training.json") if exists else None
        return cls(training=trainer_v1.Training.FromString(command.messages[0]), manifest=manifest, **fields)


@dataclass(frozen=True)
class TrainingLoader:
    """Loads trainings. `root` holds their folders; with several ranks it must be on a disk that all ranks share."""

    root: Path
    publisher: Publisher
    world: World
    device: torch.device
    # Memory that a step may take beyond the loaded models; None: all that is free when the step begins.
    memory_bytes: int | None = None
    # Peak operations a second of one device; None: looked up by its name.
    peak_flops: float | None = None
    rollback: RollbackPlace = "memory"

    def speed(self) -> Speed:
        """The devices of all ranks together."""
        peak = self.peak_flops or peak_flops(self.device)
        return Speed(self.device, peak * self.world.size if peak else None)

    def free_bytes(self) -> int:
        """The memory that a step may take now; rank 0 decides for all ranks."""
        if not leads(self.world):
            return sys.maxsize
        return free_bytes(self.device) if self.memory_bytes is None else self.memory_bytes

    def checkpoints(self, training_id: str) -> CheckpointStore:
        """The checkpoints of a training."""
        return CheckpointStore(self.root / training_id / "checkpoints", self.world)

    def load(
        self,
        request: LoadRequest,
        folders: dict[str, Path],
        check_stopped: Callable[[], None],
        executor: Executor | None = None,
    ) -> LoadedTraining:
        """The training, restored and verified. Writes the manifest of a new training."""
        training = request.training
        start = Start(
            init=folders["init"],
            reference=folders.get("reference"),
            critic=folders.get("critic_init"),
            reference_is_init=not training.HasField("reference") or training.reference.digest == training.init.digest,
            seed=training.seed,
            compute_dtype=request.compute_dtype,
            world=self.world,
            device=self.device,
        )
        torch.manual_seed(training.seed % 2**63)
        algorithm = build_algorithm(training, start)
        manifest = request.manifest or new_manifest(
            training, algorithm, compute_dtype=request.compute_dtype, compute_threads=request.compute_threads
        )
        checkpoints = self.checkpoints(training.training_id)
        if leads(self.world):
            checkpoints.remove_unfinished()
            if request.manifest is None:
                manifest.write(self.root / training.training_id / "training.json")
        history = TrainingHistory(0, manifest.digest, {0: manifest.digest})
        if request.version:
            history = TrainingHistory.from_json(checkpoints.history(request.version))
        loaded = LoadedTraining(
            manifest,
            history,
            algorithm,
            checkpoints,
            self.publisher,
            check_stopped,
            executor or InProcessExecutor(),
            self.free_bytes,
            self.speed(),
            Rollback(self.rollback),
        )
        if request.version:
            loaded.restore(request.version)
            log.info("%s: restored version %d", training.training_id, request.version)
        verify_restored(loaded, self.root / training.training_id)
        return loaded


async def fetch_weights(training: trainer_v1.Training, cache: Path) -> dict[str, Path]:
    """The folders of the weights that the training refers to, verified."""
    refs: dict[str, types_v1.WeightsRef] = {"init": training.init}
    if training.HasField("reference"):
        refs["reference"] = training.reference
    if training.HasField("critic_init"):
        refs["critic_init"] = training.critic_init
    return {name: await fetch(ref, cache) for name, ref in refs.items()}
