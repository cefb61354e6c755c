"""Writes each step's metrics to the configured writers. A writer that fails never fails a step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from accord import plugins
from accord.trainer import v1 as trainer_v1
from accord_trainer.metrics.writer import GROUP, MetricsWriter

log = logging.getLogger(__name__)


class MetricsLog:
    """The writers of every training, opened at its first step. `folder` returns a training's folder."""

    def __init__(self, names: Sequence[str], folder: Callable[[str], Path]) -> None:
        """InvalidArgument for an unknown writer; FailedPrecondition if its extra is not installed."""
        self._kinds: dict[str, Any] = {name: plugins.load(GROUP, name, field="metrics") for name in names}
        self._folder = folder
        # training -> (the last version written, its writers)
        self._open: dict[str, tuple[int, list[MetricsWriter]]] = {}

    def write(self, result: trainer_v1.StepResult) -> None:
        """Writes the metrics of a step. A repeated step replaces its earlier metrics."""
        last, writers = self._open.pop(result.training_id, (-1, []))
        if last + 1 != result.version:
            for writer in writers:
                self._try("close", writer.close)
            opened = (self._try("open", partial(self._new, kind, result)) for kind in self._kinds.values())
            writers = [writer for writer in opened if writer is not None]
        metrics = {**result.metrics, "seconds": result.seconds}
        for writer in writers:
            self._try("write", partial(writer.write, result.version, metrics))
        self._open[result.training_id] = (result.version, writers)

    def forget(self, training_id: str) -> None:
        """Closes the writers of a deleted training."""
        for writer in self._open.pop(training_id, (0, []))[1]:
            self._try("close", writer.close)

    def close(self) -> None:
        """Closes all writers."""
        for training_id in list(self._open):
            self.forget(training_id)

    def _new(self, kind: Any, result: trainer_v1.StepResult) -> MetricsWriter:
        writer: MetricsWriter = kind(self._folder(result.training_id), result.version)
        return writer

    def _try(self, what: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception:
            log.warning("Metrics failed (%s); training continues", what, exc_info=True)
            return None
