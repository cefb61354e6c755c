"""What each service process promises to any client, seen from outside: reflection, health, refusals, limits, drain."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.api import field_behavior_pb2
from google.protobuf.descriptor import FieldDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support.reflected import Reflected, details, reflecting

pytestmark = pytest.mark.process

USAGE = "accord.usage.v1.UsageService"
HEALTH, REFLECTION = "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"
# Services of each process, and a method that answers without being told anything.
OFFERED = {
    "rollout": (["accord.rollout.v1.RolloutService"], "accord.rollout.v1.RolloutService.GetStatus"),
    "reward": (["accord.reward.v1.RewardService"], "accord.reward.v1.RewardService.ListScorers"),
    "preference": (
        ["accord.preference.v1.AnnotatorService", "accord.preference.v1.PreferenceService"],
        "accord.preference.v1.PreferenceService.GetStats",
    ),
    "trainer": (
        ["accord.artifact.v1.ArtifactService", "accord.trainer.v1.TrainerService"],
        "accord.trainer.v1.TrainerService.GetStatus",
    ),
    "controller": (
        ["accord.controller.v1.ModelService", "accord.controller.v1.RunService"],
        "accord.controller.v1.RunService.ListRuns",
    ),
}
LIMIT = 2**16
NAMES = sorted(OFFERED)


def _start(name: str, folder: Path) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ACCORD_")}
    flags = ["--state-dir", str(folder), "--max-message-bytes", str(LIMIT), "--drain-seconds", "5"]
    return subprocess.Popen(
        [sys.executable, "-m", f"accord_{name}", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip


def _address(name: str, process: subprocess.Popen[str]) -> str:
    """Where the process says that it serves; what it printed instead when it ends."""
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        _, found, address = line.partition(f"accord_{name} serving at ")
        if found:
            return address.strip()
    pytest.fail(f"accord_{name} ended with {process.wait()}:\n{''.join(said)}")


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """All five services as processes of their own, by name."""
    folder = tmp_path_factory.mktemp("state")
    processes = {name: _start(name, folder) for name in NAMES}
    try:
        found = {name: _address(name, process) for name, process in processes.items()}
        for process in processes.values():  # a full pipe would stop the process that writes to it
            threading.Thread(target=process.communicate, daemon=True).start()
        yield found
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def server(name: str, addresses: dict[str, str]) -> Iterator[Reflected]:
    with reflecting(addresses[name]) as found:
        yield found


def test_reflection_lists_every_service(name: str, server: Reflected) -> None:
    assert server.services == sorted([*OFFERED[name][0], USAGE, HEALTH, REFLECTION])


def test_a_method_found_by_reflection_alone_can_be_called(name: str, server: Reflected) -> None:
    service, _, wanted = OFFERED[name][1].rpartition(".")
    method = next(method for method in server.methods(service) if method.name == wanted)
    [response] = server.call(method)
    assert response.DESCRIPTOR.full_name == f"{service.rpartition('.')[0]}.{wanted}Response"


def test_every_call_refuses_an_empty_request_by_naming_what_is_missing(name: str, server: Reflected) -> None:
    checked = 0
    for service in OFFERED[name][0]:
        for method in server.methods(service):
            required = {field.name for field in method.input_type.fields if _required(field)}
            if not required:
                continue
            with pytest.raises(grpc.RpcError) as raised:
                server.call(method)
            info, bad = details(raised.value)
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT, method.full_name
            assert (info.reason, info.domain) == ("REQUIRED_FIELD_MISSING", "accord.dev"), method.full_name
            assert {violation.field for violation in bad.field_violations} == required, method.full_name
            checked += 1
    assert checked > 0


def _required(field: FieldDescriptor) -> bool:
    """Reflection's pool is its own: the option is read from its bytes."""
    options = field_behavior_pb2.DESCRIPTOR.pool.FindMessageTypeByName("google.protobuf.FieldOptions")
    known = options._concrete_class.FromString(field.GetOptions().SerializeToString())
    return field_behavior_pb2.REQUIRED in known.Extensions[field_behavior_pb2.field_behavior]


def test_a_message_over_the_limit_is_refused_and_the_service_goes_on(name: str, addresses: dict[str, str]) -> None:
    with grpc.insecure_channel(addresses[name]) as channel:
        method = OFFERED[name][1].rpartition(".")
        call = channel.unary_unary(f"/{method[0]}/{method[2]}")
        with pytest.raises(grpc.RpcError) as raised:
            call(b"\x00" * (LIMIT + 1), timeout=20)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        call(b"", timeout=20)


def test_health_says_serving_for_the_process_and_each_service(name: str, addresses: dict[str, str]) -> None:
    with grpc.insecure_channel(addresses[name]) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", *OFFERED[name][0]):
            status = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status
            assert status == health_pb2.HealthCheckResponse.SERVING, service
        with pytest.raises(grpc.RpcError) as raised:
            health.Check(health_pb2.HealthCheckRequest(service="accord.nothing.v1.Nothing"), timeout=20)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_sigterm_turns_health_to_not_serving_while_a_call_in_work_ends_and_exits_with_0(tmp_path: Path) -> None:
    process = _start("preference", tmp_path)
    try:
        with grpc.insecure_channel(_address("preference", process)) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=30)
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            # A client stream that is still open: the import waits for its records.
            records: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
            records.put(b"\x0a\x01r")  # request_id: "r"
            in_work = channel.stream_unary("/accord.preference.v1.PreferenceService/ImportRecords").future(
                iter(records.get, None), timeout=30
            )
            channel.unary_unary("/accord.preference.v1.PreferenceService/GetStats")(b"", timeout=20)
            process.send_signal(signal.SIGTERM)
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            records.put(None)
            assert in_work.result(20) == b""  # ImportRecordsResponse: nothing was imported
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()
