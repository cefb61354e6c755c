"""TLS of the server: certificates, which are reloaded after a renewal, and the clients that may connect."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import grpc

from accord.errors import FailedPrecondition

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Files:
    """The contents of PEM files."""

    certificate: bytes
    key: bytes
    client_authorities: bytes | None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.client_authorities)


def server_credentials(certificate: Path, key: Path, client_authorities: Path | None) -> grpc.ServerCredentials:
    """TLS with `certificate` and `key`; with `client_authorities`, only for clients whose certificate one of them has
    signed. Changes to the files apply to new connections without a restart.

    FailedPrecondition, TLS_FILES, for files that cannot be read or are not PEM.
    """
    paths = (certificate, key, client_authorities)
    try:
        current = _read(*paths)
    except OSError as error:
        raise FailedPrecondition(f"a TLS file cannot be read: {error}", reason="TLS_FILES") from error
    for path, data in zip(paths, (current.certificate, current.key, current.client_authorities), strict=True):
        if path is not None and b"-----BEGIN" not in (data or b""):
            raise FailedPrecondition(f"{path} is not a PEM file", reason="TLS_FILES", metadata={"file": str(path)})

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC before each handshake; None: unchanged."""
        nonlocal current
        try:
            found = _read(*paths)
        except OSError as error:
            log.warning("a TLS file cannot be read; the previous certificate stays active: %s", error)
            return None
        if found == current:
            return None
        current = found
        log.info("the certificate %s was renewed", certificate)
        return found.configuration()

    return grpc.dynamic_ssl_server_credentials(
        current.configuration(),
        renewed,  # type: ignore[arg-type]  # types-grpcio omits that None may be returned
        require_client_authentication=client_authorities is not None,
    )


def _read(certificate: Path, key: Path, client_authorities: Path | None) -> _Files:
    return _Files(
        certificate.read_bytes(), key.read_bytes(), client_authorities.read_bytes() if client_authorities else None
    )
