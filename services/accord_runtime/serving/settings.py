"""Settings that every service has. A service adds its own in one frozen subclass: flags and environment follow."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def service_config(name: str) -> SettingsConfigDict:
    """The configuration of the settings class of service `name`: environment ACCORD_<NAME>_<FIELD>, flags --<field>."""
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
    """What any Accord service can be told."""

    host: str = Field(
        "127.0.0.1", description="Address to listen on; anything but loopback needs TLS or --allow-insecure."
    )
    port: int = Field(0, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    allow_insecure: bool = Field(False, description="Serve without TLS off loopback: only on a network you trust.")
    tls_cert: Path | None = Field(None, description="PEM certificate chain of this server.")
    tls_key: Path | None = Field(None, description="PEM private key of this server.")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM certificates of authorities: only clients with a certificate that one of them signed may "
        "connect (mutual TLS). Unset: whoever trusts this server.",
    )
    health_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port that answers grpc.health.v1 alone, without TLS: for probes that bring no certificate. Unset: "
        "none.",
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port of /metrics for Prometheus, plain HTTP; 0 takes a free one. Unset: none.",
    )
    state_dir: Path = Field(Path(".accord"), description="Where everything that must survive is kept.")
    max_message_bytes: int = Field(64 * 2**20, ge=2**16, description="The largest gRPC message taken or sent, bytes.")
    drain_seconds: float = Field(20, ge=0, description="On SIGTERM: how long calls in work may take to end.")
    max_call_seconds: float = Field(
        3600, gt=0, description="The deadline of calls that bring none, and the longest allowed."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")

    @model_validator(mode="after")
    def _reachable_only_on_purpose(self) -> ServiceSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: give both or none")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca asks for client certificates: give --tls-cert and --tls-key too")
        if self.host not in LOOPBACK and self.tls_cert is None and not self.allow_insecure:
            raise ValueError(
                f"host {self.host} can be reached from other machines: give --tls-cert and --tls-key, "
                "or --allow-insecure on a network you trust"
            )
        return self


class DatabaseSettings(ServiceSettings):
    """What a service with a database of its own can be told besides."""

    database_url: str = Field(
        "",
        description="Where everything is stored, sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME; empty: a "
        "SQLite file in the state folder.",
    )
    migrations: Literal["on-start", "awaited"] = Field(
        "on-start",
        description="on-start: the service brings its database up to date itself; awaited: it serves once somebody "
        "has, by `python -m accord_SERVICE.migrate`.",
    )
    migration_seconds: float = Field(
        300, ge=0, description="How long a database may take to be there and, where it is awaited, up to date."
    )
