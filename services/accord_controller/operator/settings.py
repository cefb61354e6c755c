"""Settings of the operator: environment ACCORD_OPERATOR_<FIELD>, flags --<field>."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class OperatorSettings(BaseSettings):
    """The settings of `python -m accord_controller.operator`."""

    model_config = SettingsConfigDict(
        env_prefix="ACCORD_OPERATOR_",
        frozen=True,
        extra="forbid",
        cli_prog_name="python -m accord_controller.operator",
        cli_kebab_case=True,
        cli_hide_none_type=True,
    )

    controller_address: str = Field("controller:7000", description="host:port of the controller.")
    namespace: str = Field(
        "", description="The namespace whose Runs are managed; empty: the namespace of the operator."
    )
    data_dir: Path = Field(Path("/data"), description="The folder that relative paths in a Run's spec start from.")
    health_port: int = Field(8080, ge=1, le=65535, description="Port of /healthz.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The lowest level that is logged."
    )
