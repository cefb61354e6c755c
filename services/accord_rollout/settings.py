"""Settings of the rollout service: flags, or environment variables ACCORD_ROLLOUT_<FIELD>."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from accord_runtime.serving.settings import ServiceSettings, service_config


class RolloutSettings(ServiceSettings):
    """Settings of the rollout service: environment ACCORD_ROLLOUT_<FIELD>, flags --<field>."""

    model_config = service_config("rollout")

    engine: str = Field("transformers", description="The engine: an entry point of group accord.engines.")
    engine_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of this engine, as JSON; see docs/engines.md."
    )
    model: Path | None = Field(
        None, description="Model folder to serve initially, as version 0; without it, the service waits for weights."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Number type of the computation; auto measures which is faster on this machine."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to compute; auto uses a GPU if there is one."
    )
    threads: int = Field(0, ge=0, description="Compute threads; 0: set by OMP_NUM_THREADS and the number of cores.")
    max_batch_size: int = Field(32, ge=1, description="Maximum number of samples in one batch.")
    max_pending_samples: int = Field(
        4096,
        ge=1,
        description="Maximum number of samples waiting or being generated; more are refused as OVERLOADED.",
    )
    max_prepared_versions: int = Field(
        2, ge=1, description="Maximum number of prepared versions; each takes the memory of a model."
    )
    fetch_seconds: float = Field(
        600, gt=0, description="Deadline for fetching and verifying weights from one source, seconds."
    )
    fetch_stall_seconds: float = Field(
        30, gt=0, description="A source that delivers less than 64 KiB within this time is abandoned, seconds."
    )
    max_lease_seconds: float = Field(600, gt=0, description="The longest lease that is granted, seconds.")
