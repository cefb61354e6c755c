"""TLS: a service with a certificate is reached by those who trust it, and by nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.certificates import make_certificate
from tests.support.sdk import Engine, Servicers

import accord
from accord import errors
from accord.rollout import v1 as rollout_v1
from accord_runtime.serving.server import start
from accord_runtime.serving.settings import ServiceSettings

ONCE = accord.RetryPolicy(attempts=1)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A fresh self-signed certificate for the name `engine.test`, and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"), "engine.test")


async def test_tls_with_the_right_trust_and_name_only(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    service = Servicers(rollout_v1.add_RolloutServiceServicer_to_server, Engine())
    running = await start(service, ServiceSettings(tls_cert=cert, tls_key=key))
    right = accord.TLS(root_certificates=cert, server_name="engine.test")
    wrong_name = accord.TLS(root_certificates=cert)
    wrong_trust = accord.TLS(server_name="engine.test")
    try:
        async with accord.Client(rollout=running.address, tls=right, retry=ONCE) as client:
            assert (await client.rollout.status()).ready
        for tls in (wrong_name, wrong_trust, None):
            async with accord.Client(rollout=running.address, tls=tls, retry=ONCE) as client:
                with pytest.raises(errors.Unavailable):
                    await client.rollout.status(timeout=10)
    finally:
        await running.stop(0)


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        accord.TLS(root_certificates=tmp_path / "nowhere.pem").credentials()
