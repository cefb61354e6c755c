"""Settings of the trainer service: flags, or environment variables ACCORD_TRAINER_<FIELD>."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from accord_runtime.serving.settings import ServiceSettings, service_config


class TrainerSettings(ServiceSettings):
    """Settings of the trainer service: environment ACCORD_TRAINER_<FIELD>, flags --<field>."""

    model_config = service_config("trainer")

    threads: int = Field(0, ge=0, description="Compute threads; 0: set by OMP_NUM_THREADS and the number of cores.")
    scheme: Literal["file", "grpc"] = Field(
        "file", description="URI scheme of published weights, unless the request names one."
    )
    delta_below: float = Field(
        0,
        ge=0,
        le=1,
        description="Publish the changes of a step in addition to the whole weights, if they take less than this "
        "fraction of the whole's bytes; 0: never. Needs --scheme grpc.",
    )
    advertise: str = Field("", description="host:port in grpc:// URIs; empty: the address that this service serves on.")
    max_loaded: int = Field(
        1, ge=1, description="Trainings kept in memory; the least recently used one is checkpointed and unloaded."
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="Under torchrun: each rank holds all weights (ddp) or its part of them (fsdp: torch's FSDP2).",
    )
    collective_seconds: float = Field(
        600, gt=0, description="Under torchrun: seconds that a rank waits for the others before it treats them as lost."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device to compute on; auto: a GPU if there is one."
    )
    memory_gib: float = Field(
        0,
        ge=0,
        description="Memory that a step may take beyond the loaded models, GiB; 0: all that is free when it begins.",
    )
    undo: Literal["memory", "disk"] = Field(
        "memory",
        description="Where the state for the rollback of a failed step is kept: in memory, or every version on disk.",
    )
    peak_tflops: float = Field(
        0,
        ge=0,
        description="Peak of one device, 1e12 operations a second, for the metric `mfu`; 0: looked up by its name.",
    )
    metrics: str = Field(
        "jsonl",
        description="Writers of each step's metrics, into the training's folder: jsonl, tensorboard, wandb, mlflow; "
        "separated by commas.",
    )
    max_lease_seconds: float = Field(600, gt=0, description="Longest lease that a client can get, seconds.")

    @model_validator(mode="after")
    def _deltas_travel(self) -> TrainerSettings:
        if self.delta_below and self.scheme != "grpc":
            raise ValueError("delta_below needs --scheme grpc, since deltas only save network traffic")
        return self
