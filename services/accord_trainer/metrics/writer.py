"""The seam of metrics writers: where the metrics of each step go, in addition to the response to Step.

A writer is a class under an entry point of group `accord.metrics_writers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

GROUP = "accord.metrics_writers"


class MetricsWriter(Protocol):
    """Writes the metrics of one training."""

    def __init__(self, folder: Path, first: int) -> None:
        """Writes below `folder`. Removes the entries of earlier writers for version `first` and later, because
        those steps are repeated after a restart from a checkpoint."""
        ...

    def write(self, version: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics of the step that made `version`, durable enough to be read while training continues."""
        ...

    def close(self) -> None:
        """Called after the last write."""
        ...
