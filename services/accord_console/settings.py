"""What the console can be told."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from accord_runtime.serving.settings import ServiceSettings, service_config


class ConsoleSettings(ServiceSettings):
    """Settings of the console: environment ACCORD_CONSOLE_<FIELD>, flags --<field>."""

    model_config = service_config("console")

    port: int = Field(8480, ge=0, le=65535, description="Port to listen on; 0 takes a free one. Invite links name it.")
    public_url: str = Field(
        "", description="How annotators reach the console, https://host; goes into invite links. Empty: host and port."
    )
    preference_address: str = Field(
        "", description="host:port of the preference service; empty: found in the state folder."
    )
    controller_address: str = Field("", description="host:port of the controller; empty: found in the state folder.")
    rollout_address: str = Field(
        "", description="host:port of a rollout service; empty: found there, or the controller's."
    )
    call_seconds: float = Field(20, gt=0, description="Deadline of each call to a service, seconds.")
    lease_seconds: float = Field(600, gt=0, description="Seconds that an annotator has for a task.")
    session_days: float = Field(30, gt=0, description="Days until an annotator must open the invite link again.")
    max_rendered_characters: int = Field(
        100_000, ge=1000, description="Longer texts are shown cut and unformatted, with a link to the whole."
    )

    @field_validator("public_url")
    @classmethod
    def _an_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/")):
            raise ValueError(f"{value!r} is no address; give https://host or http://host:port, without a path")
        return value.rstrip("/")

    @property
    def folder(self) -> Path:
        """Where the console keeps its secret and its invites."""
        return self.state_dir.absolute() / "console"
