"""The trainings of the service: all of them on disk, the recently used ones in memory."""

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
from accord_trainer.algorithm import parse_options
from accord_trainer.distributed.executor import Command, Executor
from accord_trainer.trainings.batches import BatchStore
from accord_trainer.trainings.checkpoints import CheckpointStore
from accord_trainer.trainings.compute_thread import ComputeThread
from accord_trainer.trainings.history import Manifest, TrainingHistory
from accord_trainer.trainings.loading import LoadRequest, TrainingLoader, fetch_weights
from accord_trainer.trainings.training import GROUP, LoadedTraining

log = logging.getLogger(__name__)
T = TypeVar("T")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
ID_CHARACTERS = "letters, digits, `.`, `_` and `-`"


class TrainingRegistry:
    """Trainings below `loader.root`, one folder each: training.json, batches, checkpoints. `executor` computes them."""

    def __init__(
        self, loader: TrainingLoader, executor: Executor, *, cache: Path, threads: int, max_loaded: int
    ) -> None:
        self.root = loader.root
        self.publisher = loader.publisher
        self.compute = ComputeThread()
        self._loader = loader
        self._executor = executor
        self._cache = cache
        self._threads = threads
        self._max_loaded = max_loaded
        self._loaded: OrderedDict[str, LoadedTraining] = OrderedDict()
        self._manifests: dict[str, Manifest] = {}
        # Loading a training takes several steps; two callers must not load the same one.
        self._loading = asyncio.Lock()

    def ids(self) -> list[str]:
        """Ids of all trainings, sorted."""
        return sorted(path.parent.name for path in self.root.glob("*/training.json"))

    def manifest(self, training_id: str) -> Manifest:
        """NotFound, TRAINING_NOT_FOUND."""
        if training_id not in self._manifests:
            path = self._folder(training_id) / "training.json"
            if not path.is_file():
                raise NotFound(f"training {training_id} does not exist; create it first", reason="TRAINING_NOT_FOUND")
            self._manifests[training_id] = Manifest.read(path)
        return self._manifests[training_id]

    def history(self, training_id: str) -> tuple[TrainingHistory, int]:
        """The history in memory, or in the last checkpoint; and the version of the last checkpoint."""
        manifest = self.manifest(training_id)
        loaded = self._loaded.get(training_id)
        if loaded is not None:
            return loaded.history, loaded.checkpoint_version
        checkpoints = self._checkpoints(training_id)
        versions = checkpoints.versions()
        if not versions:
            return TrainingHistory(0, manifest.digest, {0: manifest.digest}), 0
        return TrainingHistory.from_json(checkpoints.history(versions[-1])), versions[-1]

    def batches(self, training_id: str) -> BatchStore:
        """The batches of a training."""
        self.manifest(training_id)
        return BatchStore(self._folder(training_id) / "batches")

    def bytes(self, training_id: str) -> int:
        """Bytes on disk."""
        return folder_bytes(self._folder(training_id))

    async def create(self, training: trainer_v1.Training) -> None:
        """Creates and loads a training. Repeats are safe; AlreadyExists if it exists with a different definition."""
        if training.training_id in self.ids():
            if self.manifest(training.training_id).training != training:
                raise AlreadyExists(
                    f"training {training.training_id} already exists with a different definition; use another id, "
                    "or delete it",
                    reason="TRAINING_EXISTS",
                )
        else:
            # Report simple mistakes before a model is loaded.
            kind = plugins.load(GROUP, training.algorithm, field="training.algorithm")
            parse_options(training.options, kind.options_type)
            resolve_dtype(training.compute_dtype or "auto")
        await self.load(training.training_id, training)

    async def load(self, training_id: str, new: trainer_v1.Training | None = None) -> LoadedTraining:
        """The training in memory, restored from its last checkpoint if necessary; created from `new` if it does not
        exist."""
        async with self._loading:
            if training_id in self._loaded:
                self._loaded.move_to_end(training_id)
                return self._loaded[training_id]
            manifest = None if new is not None and training_id not in self.ids() else self.manifest(training_id)
            training = manifest.training if manifest else new
            assert training is not None
            await self._make_room()
            folders = await fetch_weights(training, self._cache)
            loaded = await self.compute.run(lambda: self._load(training, manifest, folders))
            self._loaded[training_id] = loaded
            self._manifests[training_id] = loaded.manifest
            return loaded

    async def use(self, training_id: str, work: Callable[[LoadedTraining], T]) -> T:
        """Runs `work` on the compute thread, with the training loaded; it is loaded again if it was unloaded
        in the meantime."""
        while True:
            loaded = await self.load(training_id)
            done, result = await self.compute.run(partial(_unless_unloaded, loaded, work))
            if done:
                return cast(T, result)

    async def delete(self, training_id: str) -> None:
        """Deletes a training: memory, checkpoints, batches."""
        self.manifest(training_id)
        async with self._loading:
            # On the compute thread, so that a running step ends first.
            await self.compute.run(lambda: self._delete(training_id))

    def _delete(self, training_id: str) -> None:
        folder = self._folder(training_id)
        if training_id in self._loaded:
            self._loaded[training_id].unloaded = True
            self._executor.run(Command("discard", training_id), lambda: None)
        (folder / "training.json").unlink(missing_ok=True)  # first: a training exists as long as this file does
        shutil.rmtree(folder)
        self._loaded.pop(training_id, None)
        self._manifests.pop(training_id, None)

    async def _make_room(self) -> None:
        while len(self._loaded) >= self._max_loaded:
            oldest, loaded = next(iter(self._loaded.items()))
            await self.compute.run(loaded.unload)
            log.info("%s: unloaded at version %d", oldest, loaded.history.version)
            del self._loaded[oldest]

    def _load(
        self, training: trainer_v1.Training, manifest: Manifest | None, folders: dict[str, Path]
    ) -> LoadedTraining:
        training_id = training.training_id
        request = LoadRequest(
            training=training,
            manifest=manifest,
            compute_dtype=manifest.compute_dtype if manifest else resolve_dtype(training.compute_dtype or "auto"),
            compute_threads=compute_threads(manifest.compute_threads if manifest else self._threads),
            version=self.history(training_id)[1] if manifest else 0,
        )
        # Several ranks stop together or not at all: if only rank 0 left a step, the others would hang.
        check_stopped = self.compute.check_stopped if self._loader.world.size == 1 else _never_stop
        return self._executor.run(
            request.command(),
            lambda: self._loader.load(request, folders, check_stopped, self._executor),
            lambda loaded: loaded.history.digest,
        )

    def _checkpoints(self, training_id: str) -> CheckpointStore:
        self._folder(training_id)  # refuses an invalid id
        return self._loader.checkpoints(training_id)

    def _folder(self, training_id: str) -> Path:
        if not ID.fullmatch(training_id):
            raise InvalidArgument.at("training_id", f"is {training_id!r}; must consist of {ID_CHARACTERS}")
        return self.root / training_id


def _never_stop() -> None:
    """The check of computations that cannot be stopped."""


def _unless_unloaded(training: LoadedTraining, work: Callable[[LoadedTraining], T]) -> tuple[bool, T | None]:
    return (False, None) if training.unloaded else (True, work(training))


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def needed_digests(training: trainer_v1.Training) -> set[str]:
    """Digests of the weights that a training needs when it is restored."""
    refs: list[types_v1.WeightsRef] = [training.init, training.reference, training.critic_init]
    return {ref.digest for ref in refs if ref.digest}
