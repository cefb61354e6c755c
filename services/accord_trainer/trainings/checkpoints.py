"""Checkpoints: folders that exist completely or not at all. safetensors for tensors, JSON for the rest; no pickle.

With several ranks each writes its own shards into one folder on a shared disk; a different number of ranks can continue
from it.
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
from accord_trainer.distributed.sharded_safetensors import is_sharded, read_shards, write_shards
from accord_trainer.distributed.world import Alone, World, all_or_none, leads

KEEP = 2
# Room for the JSON and the headers in addition to the tensors.
SLACK_BYTES = 2**20


class CheckpointStore:
    """The checkpoints of one training below `root`, one folder per version; the last two are kept."""

    def __init__(self, root: Path, world: World | None = None) -> None:
        self.root = root
        self._world = world or Alone()

    def versions(self) -> list[int]:
        """Versions that can be restored, ascending."""
        if not self.root.is_dir():
            return []
        return sorted(int(path.name) for path in self.root.iterdir() if path.is_dir() and path.name.isdigit())

    def require_space(self, state: AlgorithmState) -> None:
        """ResourceExhausted, DISK_FULL, if a checkpoint of `state` would not fit; rank 0 checks for all ranks."""
        if leads(self._world):
            atomic.require_space(self.root, state_bytes(state) + SLACK_BYTES)

    def write(self, version: int, state: AlgorithmState, generator: torch.Generator, history: dict[str, Any]) -> None:
        """Writes the checkpoint of `version` durably, then deletes all but the last two. All ranks call this together;
        if one fails, all fail, and there is no folder."""
        with all_or_none(self._world):
            self.require_space(state)
        sharded = is_sharded(state.weights)
        with self._folder(version) as part:
            if sharded:
                write_shards(part, "weights", state.weights, self._world)
                write_shards(part, "optimizer", state.optimizer, self._world)
            if leads(self._world):
                if not sharded:
                    save_file({name: t.contiguous() for name, t in state.weights.items()}, part / "weights.safetensors")
                    save_file(
                        {name: t.contiguous() for name, t in state.optimizer.items()}, part / "optimizer.safetensors"
                    )
                save_file({"generator": generator.get_state()}, part / "rng.safetensors")
                content = {"record": history, "scalars": state.scalars}
                (part / "state.json").write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False))

    @contextmanager
    def _folder(self, version: int) -> Iterator[Path]:
        """The folder to write into, the same on all ranks. It gets its final name when all ranks are done."""
        with all_or_none(self._world), self._part(self._path(version)) as part, all_or_none(self._world):
            yield part

    @contextmanager
    def _part(self, path: Path) -> Iterator[Path]:
        """Rank 0 makes the folder, broadcasts its name (empty on failure), and moves it to `path`."""
        if not leads(self._world):
            name = self._world.broadcast(b"").decode()
            if not name:
                raise Aborted("rank 0 could not make the folder; see its error", reason="OTHER_RANK")
            yield path.parent / name
            return
        with ExitStack() as stack:
            try:
                part = stack.enter_context(atomic.folder(path))
            except BaseException:
                self._world.broadcast(b"")
                raise
            self._world.broadcast(part.name.encode())
            yield part
        for old in self.versions()[:-KEEP]:
            shutil.rmtree(self._path(old))

    def remove_unfinished(self) -> None:
        """Deletes the unfinished folders of processes that were killed while writing."""
        for path in self.root.glob(".*") if self.root.is_dir() else ():
            shutil.rmtree(path)

    def history(self, version: int) -> dict[str, Any]:
        """The history in a checkpoint, without reading its tensors. DataLoss, CHECKPOINT_DAMAGED."""
        return dict(self._content(version)["record"])

    def read(self, version: int, current: AlgorithmState) -> tuple[AlgorithmState, torch.Generator]:
        """The state and generator of a checkpoint, its tensors sharded as those of `current` are. DataLoss,
        CHECKPOINT_DAMAGED."""
        path = self._path(version)
        try:
            weights = read_shards(path, "weights", current.weights)
            optimizer = read_shards(path, "optimizer", current.weights)
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
    """Bytes of a checkpoint's tensors; before the first update this includes the future moments."""
    weights = sum(tensor.nbytes for tensor in state.weights.values())
    return weights + max(2 * weights, sum(tensor.nbytes for tensor in state.optimizer.values()))


def _damaged(path: Path, error: Exception) -> DataLoss:
    return DataLoss(
        f"checkpoint {path} cannot be read ({error}); delete the folder to continue from the previous checkpoint",
        reason="CHECKPOINT_DAMAGED",
    )
