"""The trainings that are kept: on disk all of them, in memory those in use."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from accord import plugins
from accord.errors import AlreadyExists, InvalidArgument, NotFound
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_models.precision import compute_threads, resolve_dtype
from accord_trainer.distributed.executor import Command, Executor
from accord_trainer.options import parse_options
from accord_trainer.trainings.batches import BatchStore
from accord_trainer.trainings.checkpoints import CheckpointStore
from accord_trainer.trainings.compute_thread import Worker
from accord_trainer.trainings.history import Manifest, TrainingHistory
from accord_trainer.trainings.loading import LoadRequest, TrainingLoader, fetch_weights
from accord_trainer.trainings.training import GROUP, LoadedTraining

log = logging.getLogger(__name__)
T = TypeVar("T")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class TrainingRegistry:
    """Trainings below `bench.root`, one folder each: training.json, batches, checkpoints. `team` computes them."""

    def __init__(self, bench: TrainingLoader, team: Executor, *, cache: Path, threads: int, max_loaded: int) -> None:
        self.root = bench.root
        self.publisher = bench.publisher
        self.worker = Worker()
        self._bench = bench
        self._team = team
        self._cache = cache
        self._threads = threads
        self._max_loaded = max_loaded
        self._live: OrderedDict[str, LoadedTraining] = OrderedDict()
        self._manifests: dict[str, Manifest] = {}
        # Opening a training takes several steps; two callers must not open the same one.
        self._opening = asyncio.Lock()

    def ids(self) -> list[str]:
        """Ids of the trainings kept, sorted."""
        return sorted(path.parent.name for path in self.root.glob("*/training.json"))

    def manifest(self, training_id: str) -> Manifest:
        """NotFound, TRAINING_NOT_FOUND."""
        if training_id not in self._manifests:
            path = self._folder(training_id) / "training.json"
            if not path.is_file():
                raise NotFound(f"no training {training_id} here; create it", reason="TRAINING_NOT_FOUND")
            self._manifests[training_id] = Manifest.read(path)
        return self._manifests[training_id]

    def record(self, training_id: str) -> tuple[TrainingHistory, int]:
        """The record as it stands in memory, or else in the last checkpoint; and that checkpoint's version."""
        manifest = self.manifest(training_id)
        live = self._live.get(training_id)
        if live is not None:
            return live.record, live.checkpoint_version
        checkpoints = self._checkpoints(training_id)
        versions = checkpoints.versions()
        if not versions:
            return TrainingHistory(0, manifest.digest, {0: manifest.digest}), 0
        return TrainingHistory.from_json(checkpoints.record(versions[-1])), versions[-1]

    def batches(self, training_id: str) -> BatchStore:
        """The batches of a training."""
        self.manifest(training_id)
        return BatchStore(self._folder(training_id) / "batches")

    def bytes(self, training_id: str) -> int:
        """Bytes on disk."""
        return folder_bytes(self._folder(training_id))

    async def create(self, training: trainer_v1.Training) -> None:
        """Opens a new training, or finds that it is there with the same content; AlreadyExists with other content."""
        if not ID.fullmatch(training.training_id):
            raise InvalidArgument.at(
                "training.training_id",
                f"is {training.training_id!r}; letters, digits, `.`, `_` and `-`, not first a sign",
            )
        if training.checkpoint_every < 0:
            raise InvalidArgument.at("training.checkpoint_every", "must be at least 0")
        if training.max_staleness < 0:
            raise InvalidArgument.at("training.max_staleness", "must be at least 0")
        if training.training_id in self.ids():
            if self.manifest(training.training_id).training != training:
                raise AlreadyExists(
                    f"training {training.training_id} exists with other content; use another id or delete it",
                    reason="TRAINING_EXISTS",
                )
        else:
            # Cheap mistakes are told before a model is loaded.
            kind = plugins.load(GROUP, training.algorithm, field="training.algorithm")
            parse_options(training.options, kind.options_type)
            resolve_dtype(training.compute_dtype or "auto")
        await self.live(training.training_id, training)

    async def live(self, training_id: str, new: trainer_v1.Training | None = None) -> LoadedTraining:
        """The training in memory, restored from its last checkpoint where it was not; `new` where it may not exist."""
        async with self._opening:
            if training_id in self._live:
                self._live.move_to_end(training_id)
                return self._live[training_id]
            known = None if new is not None and training_id not in self.ids() else self.manifest(training_id)
            training = known.training if known else new
            assert training is not None
            await self._make_room()
            folders = await fetch_weights(training, self._cache)
            live = await self.worker.run(lambda: self._open(training, known, folders))
            self._live[training_id] = live
            self._manifests[training_id] = live.manifest
            return live

    async def use(self, training_id: str, work: Callable[[LoadedTraining], T]) -> T:
        """`work` on the training, on the worker; loaded first, and again if it was unloaded while this call queued."""
        while True:
            live = await self.live(training_id)
            done, result = await self.worker.run(partial(_unless_retired, live, work))
            if done:
                return cast(T, result)

    async def delete(self, training_id: str) -> None:
        """Forgets a training: memory, checkpoints, batches."""
        self.manifest(training_id)
        async with self._opening:
            # On the worker, so that a step in hand ends first.
            await self.worker.run(lambda: self._delete(training_id))

    def _delete(self, training_id: str) -> None:
        folder = self._folder(training_id)
        if training_id in self._live:
            self._live[training_id].retired = True
            self._team.together(Command("forget", training_id), lambda: None)
        (folder / "training.json").unlink(missing_ok=True)  # first: what has none does not exist
        shutil.rmtree(folder)
        self._live.pop(training_id, None)
        self._manifests.pop(training_id, None)

    async def _make_room(self) -> None:
        while len(self._live) >= self._max_loaded:
            oldest, live = next(iter(self._live.items()))
            await self.worker.run(live.retire)
            log.info("%s: unloaded at version %d", oldest, live.record.version)
            del self._live[oldest]

    def _open(self, training: trainer_v1.Training, known: Manifest | None, folders: dict[str, Path]) -> LoadedTraining:
        training_id = training.training_id
        opening = LoadRequest(
            training=training,
            known=known,
            compute_dtype=known.compute_dtype if known else resolve_dtype(training.compute_dtype or "auto"),
            compute_threads=compute_threads(known.compute_threads if known else self._threads),
            version=self.record(training_id)[1] if known else 0,
        )
        # Several ranks stop together or not at all: a step that only rank 0 leaves would hang the others.
        check_stopped = self.worker.check_stopped if self._bench.world.size == 1 else _go_on
        return self._team.together(
            opening.order(),
            lambda: self._bench.open(opening, folders, check_stopped, self._team),
            lambda live: live.record.digest,
        )

    def _checkpoints(self, training_id: str) -> CheckpointStore:
        self._folder(training_id)  # refuses what is no id
        return self._bench.checkpoints(training_id)

    def _folder(self, training_id: str) -> Path:
        if not ID.fullmatch(training_id):
            raise InvalidArgument.at("training_id", f"is {training_id!r}; letters, digits, `.`, `_` and `-`")
        return self.root / training_id


def _go_on() -> None:
    """Nothing stops it."""


def _unless_retired(live: LoadedTraining, work: Callable[[LoadedTraining], T]) -> tuple[bool, T | None]:
    return (False, None) if live.retired else (True, work(live))


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def needed_digests(training: trainer_v1.Training) -> set[str]:
    """Digests of the weights that a training must find again when it is restored."""
    refs: list[types_v1.WeightsRef] = [training.init, training.reference, training.critic_init]
    return {ref.digest for ref in refs if ref.digest}
