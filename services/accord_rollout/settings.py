"""What the rollout service can be told, by flag or by ACCORD_ROLLOUT_<FIELD>."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from accord_runtime.serving.settings import ServiceSettings, service_config


class RolloutSettings(ServiceSettings):
    """Settings of `python -m accord_rollout`."""

    model_config = service_config("rollout")

    engine: str = Field("transformers", description="The engine: an entry point of group accord.engines.")
    engine_options: dict[str, Any] = Field(
        default_factory=dict, description="What that engine alone can be told, as JSON: docs/engines.md."
    )
    model: Path | None = Field(
        None, description="Model folder served from the start as version 0; without it the service waits for weights."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Number type of the computation; auto measures which is faster here."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to compute; auto takes a GPU if any.")
    threads: int = Field(0, ge=0, description="Threads to compute with; 0 leaves it to OMP_NUM_THREADS and the cores.")
    max_batch_size: int = Field(32, ge=1, description="The most samples generated together.")
    max_pending_samples: int = Field(
        4096, ge=1, description="Samples waiting and in work, above which new requests are refused as OVERLOADED."
    )
    max_prepared_versions: int = Field(
        2, ge=1, description="Versions prepared and not yet activated; each takes the memory of a model."
    )
    fetch_seconds: float = Field(
        600, gt=0, description="Fetching and verifying weights from one source may take so long, seconds."
    )
    fetch_stall_seconds: float = Field(
        30, gt=0, description="A source that brings fewer than 64 KiB in so many seconds is given up."
    )
    max_lease_seconds: float = Field(600, gt=0, description="The longest lease given, seconds.")
