"""Settings of the controller. Imports nothing heavy."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import Field, FilePath, field_validator

from accord import plugins
from accord_runtime.serving.settings import DatabaseSettings, service_config

# The entry-point group of launchers.
LAUNCHERS = "accord.launchers"


class ControllerSettings(DatabaseSettings):
    """Settings of the controller: environment ACCORD_CONTROLLER_<FIELD>, flags --<field>."""

    model_config = service_config("controller")

    launcher: str = Field(
        "local",
        description="How services without an address are started: local (as processes), kubernetes (as pods of each "
        "run), none (not at all), or an entry point of group accord.launchers.",
    )
    namespace: str = Field(
        "", description="Namespace in which the kubernetes launcher creates pods; empty: the controller's own."
    )
    rollout_address: str = Field(
        "",
        description="host:port of a rollout service, or of several, separated by commas; dns:///name:port stands for "
        "every address of the name; empty: the launcher starts them.",
    )
    reward_address: str = Field("", description="host:port of a reward service; empty: the launcher starts one.")
    preference_address: str = Field(
        "", description="host:port of a preference service; empty: the launcher starts one."
    )
    trainer_address: str = Field("", description="host:port of a trainer service; empty: the launcher starts one.")
    engine: str = Field("transformers", description="Engine of the rollout service that the launcher starts.")
    rollout_python: FilePath | None = Field(
        None,
        description="Python interpreter of the rollout service, if its engine has a separate environment "
        "(.venv-vllm/bin/python); unset: .venv-<engine>/bin/python if it exists, else the controller's.",
    )
    engine_pythons: dict[str, FilePath] = Field(
        default_factory=dict,
        description="Python interpreters of engines other than --engine, by engine, as JSON; unset: "
        ".venv-<engine>/bin/python if it exists, else the controller's.",
    )
    rollout_threads: int = Field(
        0, ge=0, description="Threads of a rollout service that the launcher starts; 0: all cores."
    )
    reward_threads: int = Field(
        0, ge=0, description="Threads of a reward service that the launcher starts; 0: all cores."
    )
    trainer_threads: int = Field(
        0, ge=0, description="Threads of a trainer service that the launcher starts; 0: all cores."
    )
    trainer_ranks: int = Field(
        1, ge=1, description="Ranks of a trainer that the launcher starts; above 1: under torchrun."
    )
    start_seconds: float = Field(
        120, gt=0, description="How long a service may take to start until it is healthy, seconds."
    )
    swap_seconds: float = Field(
        900, gt=0, description="How long the new engine of a swap may take until it is healthy, seconds."
    )
    pause_seconds: float = Field(
        15, ge=0, description="On SIGTERM: how long a run may take to reach its next durable point, seconds."
    )
    lease_seconds: float = Field(
        60, gt=1, description="Duration of the leases of rollout and trainer, seconds; renewed while a run needs them."
    )

    @field_validator("launcher")
    @classmethod
    def _installed(cls, launcher: str) -> str:
        known = plugins.names(LAUNCHERS)
        if launcher not in known:
            raise ValueError(f"unknown launcher {launcher!r}; available: {', '.join(known)}")
        return launcher

    @property
    def rollout_addresses(self) -> list[str]:
        """The addresses given for rollout services."""
        return [address.strip() for address in self.rollout_address.split(",") if address.strip()]

    def address(self, service: str) -> str:
        """The address given for a service, the first of several, or an empty string."""
        return (
            next(iter(self.rollout_addresses), "") if service == "rollout" else str(getattr(self, f"{service}_address"))
        )

    def python(self, engine: str) -> Path:
        """The Python of a rollout service with `engine`. The path is not resolved, because a virtual environment is
        recognised by the path of its python."""
        if engine == self.engine and self.rollout_python is not None:
            return self.rollout_python.absolute()
        own = self.engine_pythons.get(engine) or Path(f".venv-{engine}/bin/python")
        return own.absolute() if own.is_file() else Path(sys.executable)

    def threads(self, service: str) -> int:
        """Threads of a service that the controller starts; 0: all cores. The preference service computes nothing."""
        return int(getattr(self, f"{service}_threads", 0))
