"""The settings of the console."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from accord_runtime.serving.settings import ServiceSettings, service_config


class ConsoleSettings(ServiceSettings):
    """Settings of the console: environment ACCORD_CONSOLE_<FIELD>, flags --<field>."""

    model_config = service_config("console")

    port: int = Field(
        8480, ge=0, le=65535, description="Port to listen on; 0 chooses a free one. It is part of invite links."
    )
    public_url: str = Field(
        "",
        description="URL at which annotators reach the console (https://host), for invite links; empty: host:port.",
    )
    preference_address: str = Field(
        "", description="host:port of the preference service; empty: found in the state folder."
    )
    controller_address: str = Field("", description="host:port of the controller; empty: found in the state folder.")
    rollout_address: str = Field(
        "", description="host:port of a rollout service; empty: found in the state folder, or the controller's."
    )
    call_seconds: float = Field(20, gt=0, description="Deadline of each call to a service, seconds.")
    lease_seconds: float = Field(600, gt=0, description="Seconds for which a task is leased to an annotator.")
    session_days: float = Field(30, gt=0, description="Days until an annotator must open the invite link again.")
    max_rendered_characters: int = Field(
        100_000, ge=1000, description="Longer texts are shown truncated and unformatted, with a link to the full text."
    )

    @field_validator("public_url")
    @classmethod
    def _an_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/")):
            raise ValueError(f"{value!r} is not an address; use https://host or http://host:port, without a path")
        return value.rstrip("/")

    @property
    def folder(self) -> Path:
        """The folder with the console's secret, invites and comparisons."""
        return self.state_dir.absolute() / "console"
