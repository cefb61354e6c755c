"""Settings of the operator: environment ACCORD_OPERATOR_<FIELD>, flags --<field>."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class OperatorSettings(BaseSettings):
    """What `python -m accord_controller.operator` can be told."""

    model_config = SettingsConfigDict(
        env_prefix="ACCORD_OPERATOR_",
        frozen=True,
        extra="forbid",
        cli_prog_name="python -m accord_controller.operator",
        cli_kebab_case=True,
        cli_hide_none_type=True,
    )

    controller_address: str = Field("controller:7000", description="host:port of the controller.")
    namespace: str = Field("", description="Where Runs are looked after; empty: the operator's own namespace.")
    data_dir: Path = Field(Path("/data"), description="What relative paths in a Run's spec are relative to.")
    health_port: int = Field(8080, ge=1, le=65535, description="Port of /healthz.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")
