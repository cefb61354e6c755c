"""Settings that every service has. A service adds its own in a frozen subclass, which defines flags and environment
variables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def service_config(name: str) -> SettingsConfigDict:
    """The configuration of the settings class of the service `name`: environment ACCORD_<NAME>_<FIELD>, flags
    --<field>."""
    return SettingsConfigDict(
        env_prefix=f"ACCORD_{name.upper()}_",
        frozen=True,
        extra="forbid",
        cli_prog_name=f"python -m accord_{name}",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        protected_namespaces=(),
    )


class ServiceSettings(BaseSettings):
    """Settings of any Accord service."""

    host: str = Field(
        "127.0.0.1", description="Address to listen on. Any address but loopback needs TLS or --allow-insecure."
    )
    port: int = Field(0, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    allow_insecure: bool = Field(
        False, description="Serve on non-loopback addresses without TLS. Use it only on a network that you trust."
    )
    tls_cert: Path | None = Field(None, description="PEM certificate chain of this server.")
    tls_key: Path | None = Field(None, description="PEM private key of this server.")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM certificates of the authorities that sign client certificates. Only clients with such a "
        "certificate may connect (mutual TLS). Unset: any client may connect.",
    )
    health_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port for grpc.health.v1 only, without TLS, for probes that have no certificate; 0 picks a free "
        "one. Unset: none.",
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port of /metrics for Prometheus, over plain HTTP; 0 picks a free one. Unset: none.",
    )
    state_dir: Path = Field(Path(".accord"), description="Folder for everything that must survive a restart.")
    max_message_bytes: int = Field(
        64 * 2**20, ge=2**16, description="Size of the largest gRPC message that is accepted or sent, bytes."
    )
    drain_seconds: float = Field(20, ge=0, description="On SIGTERM: how long active calls may take to finish, seconds.")
    max_call_seconds: float = Field(3600, gt=0, description="Default and longest deadline of a call, seconds.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The lowest level that is logged."
    )

    @model_validator(mode="after")
    def _reachable_only_on_purpose(self) -> ServiceSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: set both or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs a server certificate: set --tls-cert and --tls-key as well")
        if self.host not in LOOPBACK and self.tls_cert is None and not self.allow_insecure:
            raise ValueError(
                f"host {self.host} can be reached from other machines: set --tls-cert and --tls-key, "
                "or --allow-insecure on a network that you trust"
            )
        return self


class DatabaseSettings(ServiceSettings):
    """Further settings of a service with a database."""

    database_url: str = Field(
        "",
        description="URL of the database, sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME. Empty: a SQLite file "
        "in the state folder.",
    )
    migrations: Literal["on-start", "awaited"] = Field(
        "on-start",
        description="on-start: the service migrates its database. awaited: it waits until another process has "
        "done so, by `python -m accord_SERVICE.migrate`.",
    )
    migration_seconds: float = Field(
        300, ge=0, description="How long to wait for the database and, with awaited, for its migration, seconds."
    )
