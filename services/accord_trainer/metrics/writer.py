"""The seam of written metrics: where the figures of each step go, besides the answer to whoever asked for the step.

A writer is a class under an entry point of group `accord.metrics_writers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

GROUP = "accord.metrics_writers"


class MetricsWriter(Protocol):
    """The curves of one training."""

    def __init__(self, folder: Path, first: int) -> None:
        """Writes below `folder`. What an earlier writer wrote there of version `first` and later is taken back: those
        steps are made again, after a restart from a checkpoint."""
        ...

    def write(self, version: int, metrics: Mapping[str, float]) -> None:
        """The figures of the step that made `version`, durable enough to be read while training goes on."""
        ...

    def close(self) -> None:
        """Nothing is written any more."""
        ...
