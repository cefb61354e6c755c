"""Mutual TLS: only those whose certificate our authority signed get in; certificates are renewed without a restart."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError
from tests.support.certificates import Authority
from tests.support.loop import Controller, finish, tiny_run, write_prompts

import accord
from accord import errors
from accord.channel import TLS, open_channel
from accord.controller import v1 as controller_v1
from accord_preference.service import build
from accord_preference.settings import PreferenceSettings
from accord_runtime.serving.server import RunningServer, start

pytestmark = pytest.mark.process

ONCE = accord.RetryPolicy(attempts=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.made(tmp_path / "ca")


@pytest.fixture
async def running(authority: Authority, tmp_path: Path) -> AsyncIterator[RunningServer]:
    """A preference service that asks for certificates, with ports for probes and metrics."""
    cert, key = authority.issue("preference", tmp_path / "preference")
    settings = PreferenceSettings(
        state_dir=tmp_path / "state", tls_cert=cert, tls_key=key, tls_client_ca=authority.certificate, health_port=0
    )
    server = await start(await build(settings), settings)
    try:
        yield server
    finally:
        await server.stop(0)


def tls(authority: Authority, folder: Path, name: str = "controller") -> TLS:
    cert, key = authority.issue(name, folder)
    return TLS(root_certificates=authority.certificate, certificate=cert, key=key)


async def test_only_a_client_of_our_authority_gets_in(
    running: RunningServer, authority: Authority, tmp_path: Path
) -> None:
    ours = tls(authority, tmp_path / "ours")
    async with accord.Client(preference=running.address, tls=ours, retry=ONCE) as client:
        assert (await client.preferences.stats()).prompts == 0
    stranger = Authority.made(tmp_path / "other-ca")
    cert, key = stranger.issue("controller", tmp_path / "theirs")
    for refused in (
        TLS(root_certificates=authority.certificate),
        TLS(root_certificates=authority.certificate, certificate=cert, key=key),
        TLS(root_certificates=stranger.certificate, certificate=ours.certificate, key=ours.key),
        None,
    ):
        async with accord.Client(preference=running.address, tls=refused, retry=ONCE) as client:
            with pytest.raises(errors.Unavailable):
                await client.preferences.stats(timeout=10)


async def test_a_probe_without_certificate_learns_health_and_nothing_else(running: RunningServer) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.health_port}") as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary("/accord.preference.v1.PreferenceService/GetStats")(b"", timeout=10)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_renewed_certificate_is_shown_to_new_connections(
    running: RunningServer, authority: Authority, tmp_path: Path
) -> None:
    ours = tls(authority, tmp_path / "ours")

    async def shown() -> str:
        async with open_channel(running.address, tls=ours) as channel:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        # gRPC does not tell a client its peer's certificate: a plain TLS handshake does.
        return await asyncio.to_thread(serial, running.address, ours)

    first = await shown()
    authority.issue("preference", tmp_path / "preference")
    second = await shown()
    assert first != second
    (tmp_path / "preference" / "tls.crt").unlink()
    assert await shown() == second, "a file that is away for a moment changes nothing"


def serial(address: str, tls: TLS) -> str:
    """The serial number of the certificate that is shown at `address`."""
    context = ssl.create_default_context(cafile=str(tls.root_certificates))
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(str(tls.certificate), str(tls.key))
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        shown = wrapped.getpeercert()
    assert shown is not None
    return str(shown["serialNumber"])


async def test_what_is_no_certificate_is_named_when_the_service_starts(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("hello")
    for cert, named in ((wrong, "wrong.pem is no PEM"), (tmp_path / "nowhere.pem", "nowhere.pem")):
        settings = PreferenceSettings(state_dir=tmp_path / "state", tls_cert=cert, tls_key=wrong)
        with pytest.raises(errors.FailedPrecondition, match=named) as raised:
            await start(await build(settings), settings)
        assert raised.value.reason == "TLS_FILES"


def test_asking_for_client_certificates_without_an_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="--tls-cert"):
        PreferenceSettings(state_dir=tmp_path, tls_client_ca=tmp_path / "ca.pem")


async def test_half_an_identity_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCORD_TLS_CERTIFICATE", "/tls/tls.crt")
    with pytest.raises(errors.FailedPrecondition, match="ACCORD_TLS_KEY"):
        open_channel("127.0.0.1:1")


@pytest.mark.timeout(420)
async def test_a_run_goes_to_its_end_where_every_service_asks_every_other_for_its_certificate(
    tmp_path: Path, tiny_folder: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = authority.issue("accord", tmp_path / "all")
    for service in ("ROLLOUT", "REWARD", "PREFERENCE", "TRAINER", "CONTROLLER"):
        for name, path in (("CERT", cert), ("KEY", key), ("CLIENT_CA", authority.certificate)):
            monkeypatch.setenv(f"ACCORD_{service}_TLS_{name}", str(path))
    for name, path in (("ROOT_CERTIFICATES", authority.certificate), ("CERTIFICATE", cert), ("KEY", key)):
        monkeypatch.setenv(f"ACCORD_TLS_{name}", str(path))
    # Weights travel from the trainer's artifact service, over the same mutual TLS.
    monkeypatch.setenv("ACCORD_TRAINER_SCHEME", "grpc")
    process = Controller(tmp_path / "state")
    try:
        address = await process.start()
        async with accord.Client(controller=address) as client:
            prompts = write_prompts(tmp_path / "prompts.jsonl")
            await client.runs.create(tiny_run("sealed", tiny_folder, prompts, iterations=1, policy__steps=2))
            ended = await finish(client, "sealed", 300)
            assert ended.status.state == controller_v1.RUN_STATE_SUCCEEDED, ended.status.message
            assert ended.status.iterations[1].policy.uri.startswith("grpc://")
            found = await client.runs.ensure_services()
        for where in found.values():
            async with grpc.aio.insecure_channel(where) as plain:
                with pytest.raises(grpc.aio.AioRpcError):
                    await health_pb2_grpc.HealthStub(plain).Check(health_pb2.HealthCheckRequest(), timeout=10)
    finally:
        process.end_everything()
