"""The rules of the contracts that buf does not know: field behaviour, request_id, comments on messages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from tests.support.contracts import METHODS, SERVICES, messages

from proto_comments import comments

pytestmark = pytest.mark.process

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


def _elements() -> Iterator[tuple[str, str]]:
    """The full name of every message, field, enum and enum value of the contracts, and of the message it is in."""
    seen: set[str] = set()
    for top in (kind for method in METHODS for kind in (method.input_type, method.output_type)):
        for found in messages(top, seen):
            if found.GetOptions().map_entry:
                continue
            yield found.full_name, found.full_name
            for field in found.fields:
                yield field.full_name, found.full_name
                if field.enum_type is not None and field.enum_type.full_name not in seen:
                    seen.add(field.enum_type.full_name)
                    yield field.enum_type.full_name, found.full_name
                    yield from (
                        (f"{field.enum_type.full_name}.{value.name}", found.full_name)
                        for value in field.enum_type.values
                    )


def test_every_service_call_message_field_and_enum_is_described() -> None:
    """The request and the response of a call are described by the call's own comment."""
    described_by_call = {kind.full_name for method in METHODS for kind in (method.input_type, method.output_type)}
    names = {name for name, _ in _elements() if name not in described_by_call}
    names |= {method.full_name for method in METHODS} | {service.full_name for service in SERVICES}
    assert sorted(names - comments().keys()) == []


def test_comments_are_sentences() -> None:
    odd = [name for name, text in comments().items() if not (text[0].isupper() or text[0] == "`") or text[-1] != "."]
    assert odd == []
