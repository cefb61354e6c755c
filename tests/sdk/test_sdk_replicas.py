"""`accord.Replicas`: work goes where least is owed; a lost or stale replica costs nothing and doubles nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from tests.support.sdk import SAMPLING, Engine, asked, collect, sample, serve

import accord
from accord.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, Unavailable
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1

add = rollout_v1.add_RolloutServiceServicer_to_server


def indices(responses: list[rollout_v1.GenerateResponse]) -> list[int]:
    return sorted(response.sample.index for response in responses)


class Dying(Engine):
    """Answers two indices, one of them twice, then is gone for good."""

    async def answer(
        self, request: rollout_v1.GenerateRequest, call: int
    ) -> AsyncIterator[rollout_v1.GenerateResponse]:
        if call == 1:
            for index in (*asked(request)[:2], asked(request)[0]):
                yield sample(request, index)
        raise Unavailable("gone")


class Stale(Engine):
    """Has version 1 until it is `updated`."""

    updated = False

    async def answer(
        self, request: rollout_v1.GenerateRequest, call: int
    ) -> AsyncIterator[rollout_v1.GenerateResponse]:
        if not self.updated:
            raise FailedPrecondition("version 1 is in force", reason="VERSION_MISMATCH")
        async for response in super().answer(request, call):
            yield response


class Slow(Engine):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def answer(
        self, request: rollout_v1.GenerateRequest, call: int
    ) -> AsyncIterator[rollout_v1.GenerateResponse]:
        await self.go.wait()
        async for response in super().answer(request, call):
            yield response


async def test_a_lost_replicas_samples_come_from_another_once_each() -> None:
    dying, other = Dying(), Engine()
    async with serve(add, dying) as first, serve(add, other) as second, accord.Replicas([first, second]) as replicas:
        found = await collect(
            replicas.generate(["a"] * 8, sampling=SAMPLING, n=2, request_id="r", version=3, timeout=60), []
        )
        assert indices(found) == list(range(16))
        assert {response.sample.request_id for response in found} == {"r"}
        assert set(replicas.outstanding_tokens.values()) == {0}
    drawn = [index for request in other.requests for index in asked(request)]
    assert len(drawn) == len(set(drawn)) == 14, "what the lost one had answered was asked for again"
    assert {request.version for request in (*dying.requests, *other.requests)} == {3}


async def test_a_replica_without_the_version_gets_no_part_until_it_has_it() -> None:
    stale, fresh = Stale(), Engine()
    async with (
        serve(add, stale) as first,
        serve(add, fresh) as second,
        accord.Replicas([first, second], rest_seconds=0.1) as replicas,
    ):
        found = await collect(replicas.generate(["a"] * 4, sampling=SAMPLING, version=2, timeout=60), [])
        assert indices(found) == [0, 1, 2, 3]
        stale.updated = True
        await asyncio.sleep(0.2)
        refused = len(stale.requests)
        assert indices(await collect(replicas.generate(["a"] * 4, sampling=SAMPLING, version=2, timeout=60), []))
        assert len(stale.requests) == refused + 1


async def test_new_work_goes_where_the_fewest_tokens_are_owed() -> None:
    slow, quick = Slow(), Engine()
    async with serve(add, slow) as first, serve(add, quick) as second, accord.Replicas([first, second]) as replicas:
        long = types_v1.SamplingParams(max_new_tokens=1000)
        busy = asyncio.create_task(collect(replicas.generate(["a"], sampling=long, timeout=60), []))
        while not slow.requests:  # noqa: ASYNC110  the server tells, it does not signal
            await asyncio.sleep(0.01)
        assert replicas.outstanding_tokens == {first: 1000, second: 0}
        assert len(await collect(replicas.generate(["b"] * 6, sampling=SAMPLING, timeout=60), [])) == 6
        assert len(slow.requests) == 1
        slow.go.set()
        assert indices(await busy) == [0]


async def test_when_none_serves_the_error_is_told_and_a_wrong_request_is_told_at_once() -> None:
    async with AsyncExitStack() as stack:
        addresses = [await stack.enter_async_context(serve(add, Stale())) for _ in range(2)]
        replicas = await stack.enter_async_context(accord.Replicas(addresses, rest_seconds=0.2))
        with pytest.raises((FailedPrecondition, DeadlineExceeded)):
            await collect(replicas.generate(["a"], sampling=SAMPLING, version=2, timeout=1.0), [])
        with pytest.raises(InvalidArgument):
            await collect(replicas.generate(["a"], sampling=types_v1.SamplingParams(), timeout=30), [])
    with pytest.raises(InvalidArgument):
        accord.Replicas([])


async def test_leaving_early_cancels_what_is_in_work() -> None:
    slow = Slow()
    async with serve(add, slow) as address, accord.Replicas([address]) as replicas:
        stream = replicas.generate(["a"] * 3, sampling=SAMPLING, timeout=60)
        waiting = asyncio.ensure_future(anext(stream))
        while not slow.requests:  # noqa: ASYNC110  the server tells, it does not signal
            await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert replicas.outstanding_tokens == {address: 0}
