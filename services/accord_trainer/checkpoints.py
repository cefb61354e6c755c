"""Checkpoints: folders that are there whole or not at all. safetensors for tensors, JSON for the rest; no pickle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from accord.errors import DataLoss
from accord_runtime import atomic
from accord_trainer.algorithm import AlgorithmState

KEEP = 2
# Room for the JSON and the headers beside the tensors.
SLACK_BYTES = 2**20


class CheckpointStore:
    """The checkpoints of one training below `root`, one folder a version; the last two are kept."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def versions(self) -> list[int]:
        """Versions that can be restored, rising."""
        if not self.root.is_dir():
            return []
        return sorted(int(path.name) for path in self.root.iterdir() if path.is_dir() and path.name.isdigit())

    def require_space(self, state: AlgorithmState) -> None:
        """ResourceExhausted, DISK_FULL, where a checkpoint of `state` would not fit."""
        atomic.require_space(self.root, state_bytes(state) + SLACK_BYTES)

    def write(self, version: int, state: AlgorithmState, generator: torch.Generator, record: dict[str, Any]) -> None:
        """Writes the checkpoint of `version`, durably, then drops all but the last two."""
        self.require_space(state)
        with atomic.folder(self._path(version)) as part:
            save_file(
                {name: tensor.contiguous() for name, tensor in state.weights.items()}, part / "weights.safetensors"
            )
            save_file(
                {name: tensor.contiguous() for name, tensor in state.optimizer.items()}, part / "optimizer.safetensors"
            )
            save_file({"generator": generator.get_state()}, part / "rng.safetensors")
            content = {"record": record, "scalars": state.scalars}
            (part / "state.json").write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False))
        for old in self.versions()[:-KEEP]:
            shutil.rmtree(self._path(old))

    def remove_unfinished(self) -> None:
        """Deletes what a process that was killed while it wrote left behind."""
        for path in self.root.glob(".*") if self.root.is_dir() else ():
            shutil.rmtree(path)

    def record(self, version: int) -> dict[str, Any]:
        """The record of a checkpoint, its tensors left alone. DataLoss, CHECKPOINT_DAMAGED."""
        return dict(self._content(version)["record"])

    def read(self, version: int) -> tuple[AlgorithmState, torch.Generator]:
        """The state and generator of a checkpoint. DataLoss, CHECKPOINT_DAMAGED."""
        path = self._path(version)
        try:
            weights = load_file(path / "weights.safetensors")
            optimizer = load_file(path / "optimizer.safetensors")
            state = load_file(path / "rng.safetensors")["generator"]
        except (OSError, SafetensorError, KeyError) as error:
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


def _damaged(path: Path, error: Exception) -> DataLoss:
    return DataLoss(
        f"checkpoint {path} cannot be read ({error}); delete that folder to go on from the one before",
        reason="CHECKPOINT_DAMAGED",
    )
