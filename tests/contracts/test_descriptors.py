"""The rules of the contracts that buf does not know: field behaviour, request_id, comments on messages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor

from accord.artifact import v1 as artifact_v1
from accord.controller import v1 as controller_v1
from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.rollout import v1 as rollout_v1
from accord.trainer import v1 as trainer_v1
from accord.usage import v1 as usage_v1
from generate import third_party

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
FILES = (
    artifact_v1.ARTIFACT_SERVICE,
    controller_v1.RUN_SERVICE,
    preference_v1.ANNOTATOR_SERVICE,
    preference_v1.PREFERENCE_SERVICE,
    reward_v1.REWARD_SERVICE,
    rollout_v1.ROLLOUT_SERVICE,
    trainer_v1.TRAINER_SERVICE,
    usage_v1.USAGE_SERVICE,
)
SERVICES: list[ServiceDescriptor] = [service for file in FILES for service in file.services_by_name.values()]
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]

READING = ("Get", "List", "Watch", "Export", "Read", "Score")
# Calls that change something and are safe to repeat without a request_id, and why.
NO_REQUEST_ID = {
    "accord.rollout.v1.RolloutService.AcquireLease": "repeating it with the token renews",
    "accord.rollout.v1.RolloutService.ReleaseLease": "releasing twice does nothing",
    "accord.trainer.v1.TrainerService.AcquireLease": "repeating it with the token renews",
    "accord.trainer.v1.TrainerService.ReleaseLease": "releasing twice does nothing",
    "accord.trainer.v1.TrainerService.Evaluate": "measures, changes nothing",
    "accord.trainer.v1.TrainerService.PutExperience": "the batch id is derived from the content",
    "accord.controller.v1.RunService.EnsureServices": "what is up stays as it is",
}
# Messages that go out of one service and come back into another as they are: checked by who takes them.
RETURNED = {"accord.types.v1.Sample", "accord.types.v1.Segment"}


def _behaviours(field: FieldDescriptor) -> list[int]:
    return list(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])


def _reachable(message: Descriptor, seen: set[str]) -> Iterator[Descriptor]:
    """`message` and those below it that a caller can fill in; output-only fields are not looked into."""
    if message.full_name in seen or not message.full_name.startswith("accord."):
        return
    if message.GetOptions().map_entry:  # written by protoc: the map's own field says how it behaves
        return
    seen.add(message.full_name)
    yield message
    for field in message.fields:
        if field.message_type is not None and field_behavior_pb2.OUTPUT_ONLY not in _behaviours(field):
            yield from _reachable(field.message_type, seen)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_field_that_a_caller_can_set_says_how_it_behaves(method: MethodDescriptor) -> None:
    silent = [
        field.full_name
        for message in _reachable(method.input_type, set())
        if message.full_name not in RETURNED
        for field in message.fields
        if not _behaviours(field)
    ]
    assert silent == []


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_call_that_changes_something_can_be_repeated(method: MethodDescriptor) -> None:
    request_id = method.input_type.fields_by_name.get("request_id")
    if method.full_name in NO_REQUEST_ID:
        assert request_id is None, "has a request_id now; take it off the list of exceptions"
    elif not method.name.startswith(READING):
        assert request_id is not None, "changes something; give its request a request_id"
        # A stream carries it in its first message only.
        streamed = method.input_type.name == "ImportRecordsRequest"
        expected = field_behavior_pb2.OPTIONAL if streamed else field_behavior_pb2.REQUIRED
        assert _behaviours(request_id) == [expected]


def test_the_exceptions_name_calls_that_exist() -> None:
    assert set(NO_REQUEST_ID) <= {method.full_name for method in METHODS}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_each_call_has_a_request_and_a_response_of_its_own(method: MethodDescriptor) -> None:
    assert (method.input_type.name, method.output_type.name) == (f"{method.name}Request", f"{method.name}Response")
    assert [m.full_name for m in METHODS if m.input_type is method.input_type] == [method.full_name]


@cache
def _commented() -> dict[str, bool]:
    """Whether each service, RPC, message and enum of the protos has a leading comment, by full name."""
    third_party()  # buf needs the Google protos
    built = subprocess.run(
        [str(Path(sys.executable).with_name("buf")), "build", "protos", "-o", "-#format=binpb"],
        cwd=ROOT, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    found: dict[str, bool] = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(built.stdout).file:
        if not file.package.startswith("accord."):
            continue
        comments = {tuple(where.path): bool(where.leading_comments.strip()) for where in file.source_code_info.location}
        for index, message in enumerate(file.message_type):
            found[f"{file.package}.{message.name}"] = comments.get((4, index), False)
        for index, enum in enumerate(file.enum_type):
            found[f"{file.package}.{enum.name}"] = comments.get((5, index), False)
        for index, service in enumerate(file.service):
            found[f"{file.package}.{service.name}"] = comments.get((6, index), False)
            for number, rpc in enumerate(service.method):
                found[f"{file.package}.{service.name}.{rpc.name}"] = comments.get((6, index, 2, number), False)
    return found


def test_every_service_call_message_and_enum_is_described() -> None:
    """The request and the response of a call are described by the call's own comment."""
    described_by_call = {t.full_name for method in METHODS for t in (method.input_type, method.output_type)}
    commented = _commented()
    assert {method.full_name for method in METHODS} <= commented.keys()
    assert [name for name, said in commented.items() if not said and name not in described_by_call] == []
