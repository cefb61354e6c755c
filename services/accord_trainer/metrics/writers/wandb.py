"""Weights & Biases; needs the extra `wandb`.

Writes offline, below the training's folder, unless WANDB_MODE is set: no data leaves the machine until `wandb
sync` uploads it. Points of a run cannot be removed, so each restart begins a new run in the training's group,
with `first_version` in its config: if a version is in two runs, the later run is valid.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import wandb

# Timeouts of the server when a run begins, and for the remaining points when it ends.
SECONDS = 30


class WandbWriter:
    """A metrics writer over the wandb SDK. Its environment variables (WANDB_PROJECT, WANDB_ENTITY, ...) apply."""

    def __init__(self, folder: Path, first: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "accord"),
            group=folder.name,
            name=f"{folder.name} from {first}",
            config={"training_id": folder.name, "first_version": first},
            dir=str(folder),
            mode=None if "WANDB_MODE" in os.environ else "offline",
            # Several trainings are written at the same time, and the service's output is not captured.
            reinit="create_new",
            settings=wandb.Settings(
                console="off", silent=True, init_timeout=SECONDS, finish_timeout=SECONDS, x_disable_stats=True
            ),
        )

    def write(self, version: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=version)

    def close(self) -> None:
        self._run.finish()
