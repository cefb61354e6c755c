"""The edge of every service: field behaviour, errors with details, deadlines, ports, drain. Against a real server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from pydantic import ValidationError

from accord.artifact import v1 as artifact_v1
from accord.errors import Unavailable
from accord_runtime.artifacts.servicer import ArtifactServicer
from accord_runtime.artifacts.store import ArtifactStore
from accord_runtime.serving.server import serving, start
from accord_runtime.serving.settings import ServiceSettings

pytestmark = pytest.mark.process


class Artifacts:
    """The smallest real service: artifacts of one folder."""

    service_names: Sequence[str] = ["accord.artifact.v1.ArtifactService"]

    def __init__(self, root: Path, seconds: float = 0) -> None:
        self._store = ArtifactStore(root)
        self._seconds = seconds
        self.closed = False

    def register(self, server: grpc.aio.Server) -> None:
        seconds = self._seconds

        class Slow(ArtifactServicer):
            async def GetArtifact(self, request, context):  # type: ignore[no-untyped-def]
                await asyncio.sleep(seconds)
                return await super().GetArtifact(request, context)

        artifact_v1.add_ArtifactServiceServicer_to_server(Slow(self._store), server)

    async def close(self) -> None:
        self.closed = True


async def _details(
    call: grpc.aio.UnaryUnaryCall,
) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo, error_details_pb2.BadRequest]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    status = await rpc_status.aio.from_call(call)
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        if detail.Is(bad.DESCRIPTOR):
            detail.Unpack(bad)
    return raised.value.code(), info, bad


async def test_a_missing_required_field_is_refused_by_name(tmp_path: Path) -> None:
    async with (
        serving(Artifacts(tmp_path), ServiceSettings()) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = artifact_v1.ArtifactServiceStub(channel)
        code, info, bad = await _details(stub.GetArtifact(artifact_v1.GetArtifactRequest()))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert (info.reason, info.domain) == ("REQUIRED_FIELD_MISSING", "accord.dev")
    assert [violation.field for violation in bad.field_violations] == ["artifact_id"]


async def test_an_error_carries_its_reason_and_a_path_out_of_the_store_is_refused(tmp_path: Path) -> None:
    async with (
        serving(Artifacts(tmp_path), ServiceSettings()) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = artifact_v1.ArtifactServiceStub(channel)
        code, info, _ = await _details(stub.GetArtifact(artifact_v1.GetArtifactRequest(artifact_id="nothing")))
        assert (code, info.reason) == (grpc.StatusCode.NOT_FOUND, "ARTIFACT_NOT_FOUND")
        code, _, bad = await _details(stub.GetArtifact(artifact_v1.GetArtifactRequest(artifact_id="../..")))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert bad.field_violations[0].field == "path"


async def test_a_call_without_a_deadline_gets_the_servers(tmp_path: Path) -> None:
    settings = ServiceSettings(max_call_seconds=0.1)
    async with (
        serving(Artifacts(tmp_path, seconds=5), settings) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = artifact_v1.ArtifactServiceStub(channel)
        code, info, _ = await _details(stub.GetArtifact(artifact_v1.GetArtifactRequest(artifact_id="a")))
    assert (code, info.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_draining_refuses_new_calls_says_not_serving_and_lets_calls_in_work_end(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    service = Artifacts(tmp_path, seconds=0.5)
    running = await start(service, ServiceSettings())
    async with grpc.aio.insecure_channel(running.address) as channel:
        stub = artifact_v1.ArtifactServiceStub(channel)
        health = health_pb2_grpc.HealthStub(channel)
        serving_now = await health.Check(health_pb2.HealthCheckRequest(service=service.service_names[0]))
        assert serving_now.status == health_pb2.HealthCheckResponse.SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await anext(aiter(watch))).status == health_pb2.HealthCheckResponse.SERVING
        in_work = stub.GetArtifact(artifact_v1.GetArtifactRequest(artifact_id="model"))
        await asyncio.sleep(0.1)
        stopping = asyncio.create_task(running.stop(5))
        assert (await anext(aiter(watch))).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetArtifact(artifact_v1.GetArtifactRequest(artifact_id="model"), timeout=2)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert list((await in_work).files) == []
        watch.cancel()
        await stopping
    assert service.closed


async def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    async with serving(Artifacts(tmp_path), ServiceSettings()) as address:
        with pytest.raises(Unavailable, match="in use") as raised:
            await start(Artifacts(tmp_path), ServiceSettings(port=int(address.rpartition(":")[2])))
    assert raised.value.reason == "PORT_IN_USE"


def test_off_loopback_without_tls_is_refused_unless_told() -> None:
    with pytest.raises(ValidationError, match="allow-insecure"):
        ServiceSettings(host="0.0.0.0")
    assert ServiceSettings(host="0.0.0.0", allow_insecure=True).host == "0.0.0.0"


def test_a_bad_flag_ends_with_one_line_and_exit_code_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "accord_preference", "--port", "none"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "port" in done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_ends_a_service_with_exit_code_0_and_removes_its_discovery_file(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "accord_preference", "--state-dir", str(tmp_path)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "ACCORD_PREFERENCE_DRAIN_SECONDS": "2"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert "serving at 127.0.0.1:" in process.stdout.readline()
        assert (tmp_path / "preference.json").exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert not (tmp_path / "preference.json").exists()
    finally:
        process.kill()
