"""Errors of services arrive as the classes that they were raised as, whatever kind of call; transport faults too."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from tests.support.sdk import FAST, SAMPLING, Engine, collect, sample, serve

import accord
from accord import errors
from accord.reward import v1 as reward_v1
from accord.rollout import v1 as rollout_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1

ADD = rollout_v1.add_RolloutServiceServicer_to_server


async def test_unary_error_keeps_class_reason_message_and_metadata() -> None:
    class Held(Engine):
        async def UpdateWeights(self, request, context):  # type: ignore[no-untyped-def]
            raise errors.FailedPrecondition("held by runs/a", reason="LEASE_HELD", metadata={"holder": "runs/a"})

    async with serve(ADD, Held()) as address, accord.Client(rollout=address, retry=FAST) as client:
        with pytest.raises(errors.FailedPrecondition, match=r"^held by runs/a$") as raised:
            await client.rollout.update_weights(types_v1.WeightsRef(uri="file:///m", digest="d"))
    assert raised.value.reason == "LEASE_HELD"
    assert raised.value.metadata == {"holder": "runs/a"}


async def test_wrong_fields_are_named_by_violations_unary_and_streaming() -> None:
    async with serve(ADD, Engine()) as address, accord.Client(rollout=address, retry=FAST) as client:
        with pytest.raises(errors.InvalidArgument) as raised:
            await client.rollout.update_weights(types_v1.WeightsRef(version=1))
        assert {violation.field for violation in raised.value.violations} == {"weights.uri", "weights.digest"}
        with pytest.raises(errors.InvalidArgument) as raised:
            await collect(client.rollout.generate(["hello"], sampling=types_v1.SamplingParams()), [])
        assert [violation.field for violation in raised.value.violations] == ["sampling.max_new_tokens"]


async def test_stream_that_fails_midway_gives_what_came_then_the_error() -> None:
    class Full(Engine):
        async def answer(self, request, call):  # type: ignore[no-untyped-def]
            yield sample(request, 0)
            raise errors.ResourceExhausted("the queue is full", reason="OVERLOADED", metadata={"limit": "8"})

    came: list[rollout_v1.GenerateResponse] = []
    async with serve(ADD, Full()) as address, accord.Client(rollout=address, retry=FAST) as client:
        with pytest.raises(errors.ResourceExhausted) as raised:
            await collect(client.rollout.generate(["a", "b"], sampling=SAMPLING), came)
    assert [response.sample.text for response in came] == ["answer 0"]
    assert (raised.value.reason, raised.value.metadata) == ("OVERLOADED", {"limit": "8"})


async def test_client_streaming_call_raises_the_services_error() -> None:
    class Refusing(trainer_v1.TrainerServiceServicer):
        async def PutExperience(self, requests, context):  # type: ignore[no-untyped-def]
            async for request in requests:
                raise errors.NotFound(f"no training {request.training_id}", reason="UNKNOWN_TRAINING")

    Refusing.__abstractmethods__ = frozenset()
    async with (
        serve(trainer_v1.add_TrainerServiceServicer_to_server, Refusing()) as address,
        accord.Client(trainer=address, retry=FAST) as client,
    ):
        example = trainer_v1.PreferenceExample(
            prompt=accord.conversation("q"), responses=["a", "b"], ranks=trainer_v1.Ranks(values=[0, 1])
        )
        with pytest.raises(errors.NotFound, match="no training t") as raised:
            await client.trainer.put_experience("t", preferences=[example])
    assert raised.value.reason == "UNKNOWN_TRAINING"


async def test_a_fault_in_the_service_is_internal() -> None:
    class Broken(Engine):
        async def GetStatus(self, request, context):  # type: ignore[no-untyped-def]
            raise KeyError("surprise")

    async with serve(ADD, Broken()) as address, accord.Client(rollout=address, retry=FAST) as client:
        with pytest.raises(errors.Internal, match="surprise") as raised:
            await client.rollout.status()
    assert raised.value.reason == "UNEXPECTED"


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (grpc.StatusCode.NOT_FOUND, errors.NotFound),
        (grpc.StatusCode.UNAUTHENTICATED, errors.Unauthenticated),
        (grpc.StatusCode.UNKNOWN, errors.AccordError),
    ],
)
async def test_a_server_that_is_not_accords_is_translated_by_its_code(
    code: grpc.StatusCode, cls: type[errors.AccordError]
) -> None:
    class Foreign(Engine):
        async def GetStatus(self, request, context):  # type: ignore[no-untyped-def]
            await context.abort(code, "no such thing")

    server = grpc.aio.server()
    ADD(Foreign(), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with accord.Client(rollout=address, retry=FAST) as client:
        with pytest.raises(errors.AccordError, match="no such thing") as raised:
            await client.rollout.status()
    await server.stop(0)
    assert type(raised.value) is cls
    assert raised.value.metadata["address"] == address


async def test_a_service_that_is_not_there_is_unavailable_and_named() -> None:
    async with accord.Client(reward="127.0.0.1:1", retry=accord.RetryPolicy(attempts=1)) as client:
        with pytest.raises(errors.Unavailable, match=r"127\.0\.0\.1:1"):
            await client.reward.scorers()


async def test_a_message_over_the_limit_is_refused_here() -> None:
    async with serve(ADD, Engine()) as address, accord.Client(reward=address, retry=FAST) as client:
        item = reward_v1.ScoreItem(prompt=accord.conversation("q"), response="x" * (64 * 2**20))
        with pytest.raises(errors.ResourceExhausted, match="larger than max"):
            await client.reward.score([item], scorers=[reward_v1.ScorerSpec(name="length")])


async def test_a_client_that_was_closed_says_so() -> None:
    async with serve(ADD, Engine()) as address:
        client = accord.Client(rollout=address)
        assert (await client.rollout.status()).ready
        await client.close()
        with pytest.raises(errors.FailedPrecondition) as raised:
            await client.rollout.status()
        assert raised.value.reason == "CLIENT_CLOSED"
        with pytest.raises(errors.FailedPrecondition):
            await collect(client.rollout.generate(["a"], sampling=SAMPLING), [])


async def test_an_area_without_an_address_says_how_to_give_one() -> None:
    async with accord.Client(rollout="127.0.0.1:1") as client:
        with pytest.raises(errors.FailedPrecondition, match=r"trainer=\"host:port\"") as raised:
            await client.trainer.status()
    assert raised.value.reason == "NO_ADDRESS"
