"""Settings of the controller. Imports nothing heavy."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import Field, FilePath, field_validator

from accord import plugins
from accord_runtime.serving.settings import DatabaseSettings, service_config

# The group of entry points that launchers plug in by.
LAUNCHERS = "accord.launchers"


class ControllerSettings(DatabaseSettings):
    """Settings of `python -m accord_controller`."""

    model_config = service_config("controller")

    launcher: str = Field(
        "local",
        description="local starts services that have no address here as processes, kubernetes as pods for each run; "
        "none starts nothing. Others plug in.",
    )
    namespace: str = Field(
        "", description="Of the kubernetes launcher: where pods are made; empty: the controller's own namespace."
    )
    rollout_address: str = Field(
        "",
        description="host:port of a rollout service, or of several with commas between them; dns:///name:port: every "
        "address of the name; empty: the launcher starts them.",
    )
    reward_address: str = Field("", description="host:port of a reward service; empty: the launcher starts one.")
    preference_address: str = Field(
        "", description="host:port of a preference service; empty: the launcher starts one."
    )
    trainer_address: str = Field("", description="host:port of a trainer service; empty: the launcher starts one.")
    engine: str = Field("transformers", description="The engine of a rollout service that is started here.")
    rollout_python: FilePath | None = Field(
        None,
        description="The Python that a rollout service started here runs under, where its engine has an environment of "
        "its own (.venv-vllm/bin/python); unset: this one.",
    )
    engine_pythons: dict[str, FilePath] = Field(
        default_factory=dict,
        description="The Pythons of engines other than --engine, by engine, as JSON; unset: .venv-<engine>/bin/python "
        "where that is there, else this one.",
    )
    rollout_threads: int = Field(0, ge=0, description="Threads of a rollout service started here; 0: all cores.")
    reward_threads: int = Field(0, ge=0, description="Threads of a reward service started here; 0: all cores.")
    trainer_threads: int = Field(0, ge=0, description="Threads of a trainer service started here; 0: all cores.")
    trainer_ranks: int = Field(1, ge=1, description="Ranks of a trainer started here; above 1: under torchrun.")
    start_seconds: float = Field(120, gt=0, description="How long a started service may take until it is healthy.")
    swap_seconds: float = Field(
        900, gt=0, description="How long a rollout engine that a run is swapped to may take until it is healthy."
    )
    pause_seconds: float = Field(
        15, ge=0, description="On SIGTERM: how long a run may take to reach its next durable point."
    )
    lease_seconds: float = Field(
        60, gt=1, description="For how long rollout and trainer are leased; renewed meanwhile."
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
        """The Python that a rollout service on `engine` runs under. Not resolved: the name of a virtual environment's
        python is what makes it one."""
        if engine == self.engine and self.rollout_python is not None:
            return self.rollout_python.absolute()
        own = self.engine_pythons.get(engine) or Path(f".venv-{engine}/bin/python")
        return own.absolute() if own.is_file() else Path(sys.executable)

    def threads(self, service: str) -> int:
        """Threads of a service started here; 0: all cores. The preference service computes nothing."""
        return int(getattr(self, f"{service}_threads", 0))
