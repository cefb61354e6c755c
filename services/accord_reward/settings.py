"""Settings of the reward service: flags, or environment variables ACCORD_REWARD_<FIELD>."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from accord_runtime.serving.settings import LOOPBACK, ServiceSettings, service_config


class RewardSettings(ServiceSettings):
    """Settings of the reward service: environment ACCORD_REWARD_<FIELD>, flags --<field>."""

    model_config = service_config("reward")

    batch_window_ms: float = Field(
        5,
        ge=0,
        le=1000,
        description="How long the first of several concurrent calls waits for others to join its batch.",
    )
    max_batch_items: int = Field(256, ge=1, description="Maximum number of items in a batch of joined calls.")
    max_batch_tokens: int = Field(
        4096,
        ge=1,
        description="Maximum number of tokens in a forward pass, padding included; a longer item gets its own pass.",
    )
    max_queued_items: int = Field(
        20_000,
        ge=1,
        description="Maximum number of items waiting or being scored; more are refused as OVERLOADED.",
    )
    max_models: int = Field(8, ge=1, description="Maximum number of reward models in memory.")
    model_idle_seconds: float = Field(
        600,
        ge=0,
        description="When max_models are loaded, a model unused for this long may be unloaded for a new one, seconds.",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "float32", description="Number type of the models; auto measures which is faster on this machine."
    )
    compute_threads: int = Field(
        0, ge=0, description="Threads of a forward pass; 0: set by OMP_NUM_THREADS and the number of cores."
    )
    allow_python: bool | None = Field(
        None,
        description="Whether `python:FILE:FUNCTION` scorers may run code from files on this machine. "
        "Unset: only if the service listens on loopback.",
    )
    python_root: Path = Field(
        Path("."), description="The folder that must contain FILE of `python:FILE:FUNCTION`, which is relative to it."
    )

    @property
    def python_allowed(self) -> bool:
        """Whether `python:` scorers are served: as configured, otherwise only on loopback."""
        return self.host in LOOPBACK if self.allow_python is None else self.allow_python
