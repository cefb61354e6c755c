"""Settings of the reward service: flags of `python -m accord_reward`, or environment ACCORD_REWARD_<FIELD>."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from accord_runtime.serving.settings import LOOPBACK, ServiceSettings, service_config


class RewardSettings(ServiceSettings):
    """What the reward service can be told."""

    model_config = service_config("reward")

    batch_window_ms: float = Field(
        5,
        ge=0,
        le=1000,
        description="How long the first of some concurrent callers waits for others to share its batch.",
    )
    max_batch_items: int = Field(256, ge=1, description="Callers are joined up to this many items.")
    max_batch_tokens: int = Field(
        4096,
        ge=1,
        description="Tokens, padding included, of one forward pass of a reward model; a longer item is alone.",
    )
    max_queued_items: int = Field(
        20_000, ge=1, description="Items waiting and in work; a request beyond is refused as OVERLOADED."
    )
    max_models: int = Field(8, ge=1, description="Reward models in memory at once.")
    model_idle_seconds: float = Field(
        600, ge=0, description="A model unused for so long makes room for a new one when max_models are loaded."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "float32", description="Number type of the models; auto measures which one this machine is faster with."
    )
    compute_threads: int = Field(0, ge=0, description="Threads of a forward pass; 0: as the environment says.")
    allow_python: bool | None = Field(
        None,
        description="Whether `python:FILE:FUNCTION` scorers may run code of this machine's files. "
        "Unset: only while listening on loopback.",
    )
    python_root: Path = Field(
        Path("."), description="The folder that FILE of `python:FILE:FUNCTION` is relative to and must not leave."
    )

    @property
    def python_allowed(self) -> bool:
        """Whether `python:` scorers are served: as told, else on loopback only."""
        return self.host in LOOPBACK if self.allow_python is None else self.allow_python
