"""Checkpoints: folders that are there whole or not at all. safetensors for tensors, JSON for the rest; no pickle.

With several ranks all write into one folder (of a disk that they share) what only they hold; another number of ranks
can go on from it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from accord import atomic
from accord.errors import Aborted, DataLoss
from accord_trainer.algorithm import AlgorithmState
from accord_trainer.distributed.sharded_safetensors import is_spread, read_shards, write_shards
from accord_trainer.distributed.world import Alone, World, all_or_none, leads

KEEP = 2
# Room for the JSON and the headers beside the tensors.
SLACK_BYTES = 2**20


class CheckpointStore:
    """The checkpoints of one training below `root`, one folder a version; the last two are kept."""

    def __init__(self, root: Path, world: World | None = None) -> None:
        self.root = root
        self._world = world or Alone()

    def versions(self) -> list[int]:
        """Versions that can be restored, rising."""
        if not self.root.is_dir():
            return []
        return sorted(int(path.name) for path in self.root.iterdir() if path.is_dir() and path.name.isdigit())

    def require_space(self, state: AlgorithmState) -> None:
        """ResourceExhausted, DISK_FULL, where a checkpoint of `state` would not fit; rank 0 looks for all."""
        if leads(self._world):
            atomic.require_space(self.root, state_bytes(state) + SLACK_BYTES)

    def write(self, version: int, state: AlgorithmState, generator: torch.Generator, record: dict[str, Any]) -> None:
        """Writes the checkpoint of `version`, durably, then drops all but the last two. All ranks call this together;
        where one fails, all do, and the folder is not there."""
        with all_or_none(self._world):
            self.require_space(state)
        spread = is_spread(state.weights)
        with self._folder(version) as part:
            if spread:
                write_shards(part, "weights", state.weights, self._world)
                write_shards(part, "optimizer", state.optimizer, self._world)
            if leads(self._world):
                if not spread:
                    save_file({name: t.contiguous() for name, t in state.weights.items()}, part / "weights.safetensors")
                    save_file(
                        {name: t.contiguous() for name, t in state.optimizer.items()}, part / "optimizer.safetensors"
                    )
                save_file({"generator": generator.get_state()}, part / "rng.safetensors")
                content = {"record": record, "scalars": state.scalars}
                (part / "state.json").write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False))

    @contextmanager
    def _folder(self, version: int) -> Iterator[Path]:
        """The folder to write in, the same on all ranks; it is put in place when all are done."""
        with all_or_none(self._world), self._part(self._path(version)) as part, all_or_none(self._world):
            yield part

    @contextmanager
    def _part(self, path: Path) -> Iterator[Path]:
        """Made and put in place by rank 0, which tells the others its name."""
        if not leads(self._world):
            name = _share(self._world, "")
            if not name:
                raise Aborted("rank 0 could not make the folder; its own error says why", reason="OTHER_RANK")
            yield path.parent / name
            return
        with ExitStack() as stack:
            try:
                part = stack.enter_context(atomic.folder(path))
            except BaseException:
                _share(self._world, "")
                raise
            _share(self._world, part.name)
            yield part
        for old in self.versions()[:-KEEP]:
            shutil.rmtree(self._path(old))

    def remove_unfinished(self) -> None:
        """Deletes what a process that was killed while it wrote left behind."""
        for path in self.root.glob(".*") if self.root.is_dir() else ():
            shutil.rmtree(path)

    def record(self, version: int) -> dict[str, Any]:
        """The record of a checkpoint, its tensors left alone. DataLoss, CHECKPOINT_DAMAGED."""
        return dict(self._content(version)["record"])

    def read(self, version: int, live: AlgorithmState) -> tuple[AlgorithmState, torch.Generator]:
        """The state and generator of a checkpoint, its tensors spread over the ranks as those of `live` are. DataLoss,
        CHECKPOINT_DAMAGED."""
        path = self._path(version)
        try:
            weights = read_shards(path, "weights", live.weights)
            optimizer = read_shards(path, "optimizer", live.weights)
            state = load_file(path / "rng.safetensors")["generator"]
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise _damaged(path, error) from error
        generator = torch.Generator()
        generator.set_state(state)
        return AlgorithmState(weights, optimizer, dict(self._content(version)["scalars"])), generator

    def _content(self, version: int) -> dict[str, Any]:
        path = self._path(version)
        try:
            content: dict[str, Any] = json.loads((path / "state.json").read_text())
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error
        return content

    def _path(self, version: int) -> Path:
        return self.root / f"{version:08d}"


def state_bytes(state: AlgorithmState) -> int:
    """Bytes of a checkpoint's tensors; before the first update the moments that will come are counted in."""
    weights = sum(tensor.nbytes for tensor in state.weights.values())
    return weights + max(2 * weights, sum(tensor.nbytes for tensor in state.optimizer.values()))


def _share(world: World, name: str) -> str:
    """Rank 0's `name`, on every rank; ASCII."""
    letters = torch.zeros(256, dtype=torch.int64)
    letters[: len(name)] = torch.tensor(list(name.encode()), dtype=torch.int64)
    return bytes(world.sum(letters).tolist()).rstrip(b"\0").decode()


def _damaged(path: Path, error: Exception) -> DataLoss:
    return DataLoss(
        f"checkpoint {path} cannot be read ({error}); delete that folder to go on from the one before",
        reason="CHECKPOINT_DAMAGED",
    )
