"""Weights & Biases; needs the extra `wandb`.

Offline below the training's folder unless WANDB_MODE says otherwise: nothing leaves the machine by itself, and `wandb
sync` brings it up later. A point of a run cannot be taken back, so each restart begins a run of its own in the
training's group, with `first_version` in its config: of a version that stands in two runs the later one counts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import wandb

# How long a server may take to answer when a run begins, and to take the rest when it ends.
SECONDS = 30


class WandbWriter:
    """A metrics writer over the wandb SDK. Its own environment variables (WANDB_PROJECT, WANDB_ENTITY, ...) hold."""

    def __init__(self, folder: Path, first: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "accord"),
            group=folder.name,
            name=f"{folder.name} from {first}",
            config={"training_id": folder.name, "first_version": first},
            dir=str(folder),
            mode=None if "WANDB_MODE" in os.environ else "offline",
            # Several trainings are written at once; what the service prints is its own business.
            reinit="create_new",
            settings=wandb.Settings(
                console="off", silent=True, init_timeout=SECONDS, finish_timeout=SECONDS, x_disable_stats=True
            ),
        )

    def write(self, version: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=version)

    def close(self) -> None:
        self._run.finish()
