"""MLflow; needs the extra `mlflow`.

Writes to the server in MLFLOW_TRACKING_URI, or else to `mlflow.db` (SQLite) in the training's folder. The experiment is
`accord/<training>`. MLflow cannot delete points of a run, so after a restart a new run copies the earlier points, and
the old run is moved to MLflow's trash.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Run

# The most metrics that MLflow accepts in one request.
MOST = 1000


class MlflowWriter:
    """A metrics writer over MLflow's client, which has its own timeouts (MLFLOW_HTTP_REQUEST_TIMEOUT)."""

    def __init__(self, folder: Path, first: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').resolve()}"
        self._client = MlflowClient(uri)
        name = f"accord/{folder.name}"
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        earlier: list[Run] = list(self._client.search_runs([experiment]))
        run = self._client.create_run(experiment, run_name=f"{folder.name} from {first}")
        self._run_id: str = run.info.run_id
        self._client.log_param(self._run_id, "training_id", folder.name)
        for old in earlier:
            self._log([point for key in old.data.metrics for point in self._before(old.info.run_id, key, first)])
            self._client.delete_run(old.info.run_id)

    def write(self, version: int, metrics: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self._log([Metric(name, value, now, version) for name, value in metrics.items()])

    def close(self) -> None:
        self._client.set_terminated(self._run_id)

    def _before(self, run_id: str, key: str, first: int) -> list[Metric]:
        return [point for point in self._client.get_metric_history(run_id, key) if point.step < first]

    def _log(self, points: list[Metric]) -> None:
        for at in range(0, len(points), MOST):
            self._client.log_batch(self._run_id, points[at : at + MOST])
