"""What the trainer service can be told, by flag or by ACCORD_TRAINER_<FIELD>."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from accord_runtime.serving.settings import ServiceSettings, service_config


class TrainerSettings(ServiceSettings):
    """Settings of `python -m accord_trainer`."""

    model_config = service_config("trainer")

    threads: int = Field(0, ge=0, description="Threads to compute with; 0 leaves it to OMP_NUM_THREADS and the cores.")
    scheme: Literal["file", "grpc"] = Field(
        "file", description="URI scheme of published weights unless asked otherwise."
    )
    delta_below: float = Field(
        0,
        ge=0,
        le=1,
        description="Publish what a step changed besides the whole, where it comes to less than this part of the "
        "whole's bytes; 0: never. Needs --scheme grpc.",
    )
    advertise: str = Field("", description="host:port in grpc:// URIs; empty: where this service serves.")
    max_loaded: int = Field(
        1, ge=1, description="Trainings kept in memory; the one unused for longest is checkpointed and unloaded."
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="Under torchrun: each rank holds all weights (ddp) or its part of them (fsdp: torch's FSDP2).",
    )
    collective_seconds: float = Field(
        600, gt=0, description="Under torchrun: how long a rank waits for the others before it counts them as lost."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="What to compute on; auto: a GPU if any.")
    memory_gib: float = Field(
        0, ge=0, description="Memory that a step may take beyond the loaded models, GiB; 0: what is free as it begins."
    )
    undo: Literal["memory", "disk"] = Field(
        "memory",
        description="Where what a failed step goes back to is kept: a copy in memory, or, of every version, on disk.",
    )
    peak_tflops: float = Field(
        0,
        ge=0,
        description="What one device can do at most, 1e12 operations a second, for the figure `mfu`; 0: by its name.",
    )
    metrics: str = Field(
        "jsonl",
        description="Where each step's figures are written, in the training's folder: jsonl, tensorboard, wandb, "
        "mlflow; by commas.",
    )
    max_lease_seconds: float = Field(600, gt=0, description="The longest lease given, seconds.")

    @model_validator(mode="after")
    def _deltas_travel(self) -> TrainerSettings:
        if self.delta_below and self.scheme != "grpc":
            raise ValueError("delta_below saves bytes on the way, and files do not travel: give --scheme grpc")
        return self
