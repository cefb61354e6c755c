"""TensorBoard event files in `tensorboard/`; needs the extra `tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class TensorBoardWriter:
    """A metrics writer over torch's SummaryWriter."""

    def __init__(self, folder: Path, first: int) -> None:
        # TensorBoard hides the points of older files in the folder from purge_step on.
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=first)

    def write(self, version: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._events.add_scalar(name, value, version)
        self._events.flush()

    def close(self) -> None:
        self._events.close()
