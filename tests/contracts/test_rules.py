"""The services enforce the limits that the contracts state: for every rule, values just outside and just inside.

Nothing is listed by hand: fields, paths and values come from the descriptors and the rules.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from tests.support.contracts import METHODS, messages
from tests.support.preference_service import ServedPreferences
from tests.support.rules import MATCHING, filled, limits

from accord._status import from_rpc_error
from accord.controller import v1 as controller_v1
from accord.errors import AccordError, InvalidArgument
from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.rules.check import MOST, required, violations
from accord.rules.rule import PATTERNS
from accord.rules.table import RULES
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_controller.spec import validation
from accord_controller.spec.defaults import resolve
from accord_preference.settings import PreferenceSettings
from accord_runtime.observability.metrics import Metrics
from accord_runtime.serving.interceptors import Edge
from accord_runtime.serving.validation import HANDLED, check
from accord_trainer.trainings.verification import TrainingIdentity, verify_preference, verify_sample

pytestmark = pytest.mark.process

LIMITED = [method for method in METHODS if [*limits(method.input_type, HANDLED)]]


class Answers(grpc.GenericRpcHandler):
    """Answers every call with an empty response: what refuses a call is the edge."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        service, _, name = details.method[1:].partition("/")
        method = next(found for found in METHODS if found.full_name == f"{service}.{name}")
        answer = GetMessageClass(method.output_type)()

        async def streamed(requests: AsyncIterator[Message], context: Any) -> Message:
            async for _ in requests:
                pass
            return answer

        async def streams(request: Message, context: Any) -> AsyncIterator[Message]:
            yield answer

        async def once(request: Message, context: Any) -> Message:
            return answer

        codecs: Any = (GetMessageClass(method.input_type).FromString, type(answer).SerializeToString)
        if method.client_streaming:
            return grpc.stream_unary_rpc_method_handler(streamed, *codecs)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(streams, *codecs)
        return grpc.unary_unary_rpc_method_handler(once, *codecs)


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    """To a server of every call behind the edge of all services."""
    server = grpc.aio.server(interceptors=[Edge(60, Metrics(list))])
    server.add_generic_rpc_handlers((Answers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as made:
        yield made
    await server.stop(0)


async def refusal(channel: grpc.aio.Channel, method: MethodDescriptor, request: Message) -> AccordError | None:
    """What the server says against a request, None where it takes it."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    call = channel.stream_stream(path, request_serializer=type(request).SerializeToString)(iter([request]), timeout=30)
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error, "here")
    return None


@pytest.mark.parametrize("method", LIMITED, ids=lambda method: method.full_name)
async def test_the_edge_takes_what_is_just_inside_of_each_limit_and_names_what_is_outside(
    method: MethodDescriptor, channel: grpc.aio.Channel
) -> None:
    assert await refusal(channel, method, filled(method.input_type)) is None
    for limit in limits(method.input_type, HANDLED):
        for value in limit.inside():
            assert await refusal(channel, method, limit.request(value)) is None, (limit.path, value)
        for value in limit.outside():
            refused = await refusal(channel, method, limit.request(value))
            assert isinstance(refused, InvalidArgument), (limit.path, value)
            unset = required(limit.fields[-1]) and not value
            assert refused.reason == ("REQUIRED_FIELD_MISSING" if unset else "INVALID_ARGUMENT")
            (violation,) = refused.violations
            assert violation.field == limit.path
            assert f"{violation.field}: {violation.description}" == refused.message


class Anything:
    """A catalog that knows no names and no models."""

    models: Mapping[str, controller_v1.Model] = {}

    def names(self, group: str) -> Sequence[str] | None:
        return None


def test_the_controller_names_what_is_outside_of_each_limit_of_a_spec() -> None:
    def said(run: Any, path: str) -> set[str]:
        """What is wrong with a field by the rules of the contract: it may also not go with the rest of the spec."""
        with pytest.raises(InvalidArgument) as refused:  # the model does not exist
            validation.check(run.run_id, resolve(run.spec), Anything())
        assert refused.value.reason == "INVALID_SPEC"
        by_contract = {violation.description for violation in violations(run)}
        found = {violation.description for violation in refused.value.violations if violation.field == path}
        return found & by_contract

    checked = [*limits(controller_v1.Run.DESCRIPTOR)]
    assert len(checked) > 30
    for limit in checked:
        for value in limit.outside():
            if required(limit.fields[-1]) and not value:
                continue  # unset: the edge refuses it
            assert said(limit.request(value), f"run.{limit.path}"), (limit.path, value)
        for value in limit.inside():
            assert not said(limit.request(value), f"run.{limit.path}"), (limit.path, value)


async def test_an_import_names_what_is_outside_of_each_limit_of_a_record(tmp_path: Path) -> None:
    served = await ServedPreferences(PreferenceSettings(state_dir=tmp_path)).start()
    try:
        for number, limit in enumerate(limits(preference_v1.ImportRecord.DESCRIPTOR)):
            for values, expected in ((limit.outside(), True), (limit.inside(), False)):
                for index, value in enumerate(values):
                    record: Any = limit.request(value)
                    if record.WhichOneof("judgement") is None:
                        record.comparison.SetInParent()
                    request = preference_v1.ImportRecordsRequest(request_id=f"{number}-{expected}-{index}")
                    request.records.append(_complete(record))
                    refused = await _imported(served.stub, request)
                    assert (f"records[0].{limit.path}" in refused) is expected, (limit.path, value, refused)
    finally:
        await served.stop()


def _complete(record: Any) -> preference_v1.ImportRecord:
    """The record with what its judgement needs beside what the contract requires."""
    record.prompt.messages[0].role = "user"
    for name in ("a", "b"):
        record.completions.add(local_id=name, text=name)
    if not record.HasField("annotator"):
        record.annotator.annotator_id, record.annotator.kind = "ann", preference_v1.ANNOTATOR_KIND_HUMAN
    if record.HasField("comparison"):
        record.comparison.chosen_id, record.comparison.rejected_id = "a", "b"
    elif record.HasField("ranking"):
        del record.ranking.ranks[:]
        record.ranking.ranks.add(completion_ids=["a"])
        record.ranking.ranks.add(completion_ids=["b"])
    else:
        record.rating.completion_id = "a"
        if not record.rating.HasField("value"):
            record.rating.value = 1
    for rating in record.criteria:
        rating.completion_id, rating.criterion = "a", "helpful"
    return record


async def _imported(stub: Any, request: preference_v1.ImportRecordsRequest) -> set[str]:
    try:
        await stub.ImportRecords(iter([request]))
    except InvalidArgument as error:
        return {violation.field for violation in error.violations}
    return set()


def test_the_trainer_refuses_what_is_outside_of_each_limit_of_experience() -> None:
    # The trainer cannot check how a sample was sampled.
    for limit in limits(trainer_v1.ExperienceChunk.DESCRIPTOR, {"accord.types.v1.Sample"}):
        for values, expected in ((limit.outside(), True), (limit.inside(), False)):
            for value in values:
                assert _is_refused(limit.request(value), limit.path) is expected, (limit.path, value)


def _is_refused(chunk: Any, path: str) -> bool:
    """Whether the trainer refuses the one record of a chunk, and names the field."""
    init = types_v1.WeightsRef(digest="init")
    try:
        for scored in chunk.samples:
            scored.sample.CopyFrom(
                types_v1.Sample(
                    prompt_token_ids=[1],
                    response_token_ids=[1],
                    logprobs=[-1.0],
                    response_mask=[True],
                    finish_reason=types_v1.FINISH_REASON_STOP,
                    segments=[types_v1.Segment(digest="init")],
                )
            )
            verify_sample(scored, "samples[0]", TrainingIdentity("samples", 10, "", {0: "init"}, init))
        for example in chunk.preferences:
            example.prompt.messages[0].role = "user"
            example.responses[:] = ["a", "b"]
            if example.HasField("ratings"):
                example.ratings.values.append(0.5)
            else:
                example.ranks.values.append(1)
                example.ranks.values.extend([0] * (2 - len(example.ranks.values)))
            verify_preference(example, "preferences[0]", TrainingIdentity("preferences", 10, "", {}, init))
    except InvalidArgument as error:
        (violation,) = error.violations
        assert path.startswith(violation.field), (path, violation.field)
        return True
    return False


def test_every_rule_is_of_a_field_that_exists_and_can_be_said_in_words() -> None:
    seen: set[str] = set()
    names = {
        field.full_name
        for method in METHODS
        for top in (method.input_type, method.output_type)
        for message in messages(top, seen)
        for field in message.fields
    }
    assert set(RULES) <= names
    assert {rule.pattern for rule in RULES.values()} - {""} == set(PATTERNS)
    assert all(re.search(pattern, MATCHING) for pattern in PATTERNS)


def test_at_most_20_violations_are_found_and_named() -> None:
    request = filled(reward_v1.ScoreRequest.DESCRIPTOR)
    for _ in range(100_000):
        request.items.add()
    started = time.perf_counter()
    with pytest.raises(InvalidArgument) as refused:
        check(request)
    assert time.perf_counter() - started < 0.5
    assert len(refused.value.violations) == MOST == 20
    assert refused.value.reason == "REQUIRED_FIELD_MISSING"
    scorers = reward_v1.ScoreRequest(scorers=[reward_v1.ScorerSpec(name="x", scale=0.0)] * 50, items=request.items[:1])
    assert [violation.field for violation in violations(scorers)] == [f"scorers[{index}].scale" for index in range(20)]


def test_every_field_that_a_mask_names_is_checked_however_many_others_are_wrong() -> None:
    run = controller_v1.Run(run_id="demo")
    run.spec.feedback.simulated.scorers.extend([reward_v1.ScorerSpec()] * 50)
    run.spec.rollout.autoscale.SetInParent()
    request = controller_v1.UpdateRunRequest(request_id="r", run=run)
    request.update_mask.paths.append("spec.rollout.autoscale")
    with pytest.raises(InvalidArgument) as refused:
        check(request)
    assert [violation.field for violation in refused.value.violations] == ["run.spec.rollout.autoscale.max_replicas"]
