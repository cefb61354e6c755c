"""`accord.Replicas`: work goes where least is owed; a lost or stale replica costs nothing and doubles nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from tests.support.sdk import SAMPLING, Engine, asked, collect, sample, serve

import accord
from accord.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1

pytestmark = pytest.mark.process

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
    """Answers when it is told to; or is `gone` then."""

    def __init__(self, *, gone: bool = False) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.left = asyncio.Event()
        self.gone = gone

    async def answer(
        self, request: rollout_v1.GenerateRequest, call: int
    ) -> AsyncIterator[rollout_v1.GenerateResponse]:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        if self.gone:
            raise Unavailable("gone")
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


class Phased(Engine):
    """Prepares and activates, under a lease, and keeps one version prepared at most."""

    def __init__(self, *, two_phases: bool = True) -> None:
        super().__init__()
        self.two_phases = two_phases
        self.prepared: dict[int, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.version = -1

    async def PrepareWeights(self, request, context):  # type: ignore[no-untyped-def]
        if not self.two_phases:
            raise Unimplemented("no such call")
        self.calls.append(("prepare", request.lease_token))
        if self.prepared and request.weights.version not in self.prepared:
            raise ResourceExhausted("one is prepared", reason="TOO_MANY_PREPARED")
        self.prepared[request.weights.version] = request.weights.digest
        return rollout_v1.PrepareWeightsResponse()

    async def ActivateWeights(self, request, context):  # type: ignore[no-untyped-def]
        self.calls.append(("activate", request.lease_token))
        del self.prepared[request.version]
        self.version = request.version
        return rollout_v1.ActivateWeightsResponse()

    async def DiscardWeights(self, request, context):  # type: ignore[no-untyped-def]
        self.calls.append(("discard", request.lease_token))
        del self.prepared[request.version]
        return rollout_v1.DiscardWeightsResponse()

    async def UpdateWeights(self, request, context):  # type: ignore[no-untyped-def]
        self.calls.append(("update", request.lease_token))
        self.version = request.weights.version
        return rollout_v1.UpdateWeightsResponse()

    async def GetStatus(self, request, context):  # type: ignore[no-untyped-def]
        prepared = [rollout_v1.PreparedWeights(version=version) for version in self.prepared]
        return rollout_v1.GetStatusResponse(
            engine="phased", ready=True, version=self.version, digest="d", prepared=prepared
        )


WEIGHTS = types_v1.WeightsRef(uri="file:///w", version=4, digest="d", format="merged")


async def test_weights_are_prepared_everywhere_before_any_are_activated_and_one_phase_is_enough() -> None:
    both, one = Phased(), Phased(two_phases=False)
    both.prepared[2] = "left by somebody"
    async with serve(add, both) as first, serve(add, one) as second, accord.Replicas([first, second]) as replicas:
        await replicas.acquire_lease("me", ttl_seconds=60)
        assert await replicas.prepare_weights(WEIGHTS) == {}
        assert (both.version, one.version) == (-1, -1), "the old ones serve until all are ready"
        assert await replicas.activate_weights(WEIGHTS) == {}
        assert (both.version, one.version) == (4, 4)
        assert [call for call, _ in both.calls] == ["prepare", "discard", "prepare", "activate"]
        assert {token for _, token in (*both.calls, *one.calls)} == {"secret"}
        await replicas.update_weights(WEIGHTS)
        assert len(both.calls) == 4, "what is in force already is not loaded again"


async def test_a_newcomer_draws_only_once_it_has_the_weights_and_who_leaves_finishes_what_it_draws() -> None:
    slow, newcomer = Slow(), Phased()
    async with serve(add, slow) as first, serve(add, newcomer) as second, accord.Replicas([first]) as replicas:
        running = asyncio.create_task(collect(replicas.generate(["a"] * 2, sampling=SAMPLING, timeout=60), []))
        while not slow.requests:  # noqa: ASYNC110  the server tells, it does not signal
            await asyncio.sleep(0.01)
        await replicas.join(second, WEIGHTS, holder="me")
        assert newcomer.version == 4
        assert newcomer.requests == []
        leaving = asyncio.create_task(replicas.remove(first))
        await asyncio.sleep(0)
        assert indices(await collect(replicas.generate(["b"] * 3, sampling=SAMPLING, version=4, timeout=60), []))
        assert (len(slow.requests), replicas.addresses) == (1, [second])
        assert not leaving.done()
        slow.go.set()
        assert indices(await running) == [0, 1]
        await leaving
        assert list(replicas.outstanding_tokens) == [second]
        with pytest.raises(NotFound):
            await replicas.remove(first)


async def test_what_one_that_leaves_does_not_finish_in_time_is_asked_of_others() -> None:
    slow, other = Slow(), Engine()
    async with serve(add, slow) as first, serve(add, other) as second, accord.Replicas([first]) as replicas:
        running = asyncio.create_task(
            collect(replicas.generate(["a"] * 2, sampling=SAMPLING, indices=[1], timeout=60), [])
        )
        while not slow.requests:  # noqa: ASYNC110  the server tells, it does not signal
            await asyncio.sleep(0.01)
        replicas.add(second)
        await replicas.remove(first, timeout=0.1)
        assert indices(await running) == [1]
        assert [asked(request) for request in other.requests] == [[1]]


async def test_without_patience_a_call_ends_soon_after_the_last_replica_is_lost() -> None:
    lost: list[str] = []
    dying = Dying()
    async with (
        serve(add, dying) as address,
        accord.Replicas(
            [address], rest_seconds=0.2, patience_seconds=0.5, on_lost=lambda at, error: lost.append(at)
        ) as replicas,
    ):
        found: list[rollout_v1.GenerateResponse] = []
        with pytest.raises(Unavailable):
            await asyncio.wait_for(
                collect(replicas.generate(["a"] * 4, sampling=SAMPLING, timeout=600), found), timeout=20
            )
        assert indices(found) == [0, 1]
        assert set(lost) == {address}


async def test_what_a_silent_replica_owes_is_asked_of_another_and_counts_once() -> None:
    """Half-open: the connection stands, nothing comes. With the answer of the second one the first is let go."""
    slow, other = Slow(), Engine()
    async with (
        serve(add, slow) as first,
        serve(add, other) as second,
        accord.Replicas([first, second], hedge_seconds=0.3) as replicas,
    ):
        found = await collect(replicas.generate(["a"] * 8, sampling=SAMPLING, n=2, request_id="r", timeout=60), [])
        assert indices(found) == list(range(16))
        assert len(slow.requests) == 1
        drawn = [index for request in other.requests for index in asked(request)]
        assert sorted(drawn) == list(range(16))
        assert {request.request_id for request in (*slow.requests, *other.requests)} == {"r"}
        assert replicas.hedged_samples == len(asked(slow.requests[0]))
        assert set(replicas.outstanding_tokens.values()) == {0}
        async with asyncio.timeout(10):
            await slow.left.wait()


async def test_the_slow_one_may_still_win_and_nothing_is_yielded_twice() -> None:
    slow, slower = Slow(), Slow()
    async with (
        serve(add, slow) as first,
        serve(add, slower) as second,
        accord.Replicas([first], hedge_seconds=0.2) as replicas,
    ):
        running = asyncio.create_task(collect(replicas.generate(["a"] * 3, sampling=SAMPLING, timeout=60), []))
        while not slow.requests:  # noqa: ASYNC110  the server tells, it does not signal
            await asyncio.sleep(0.01)
        replicas.add(second)
        while not slower.requests:  # noqa: ASYNC110  the server tells, it does not signal
            await asyncio.sleep(0.01)
        slow.go.set()
        slower.go.set()
        assert indices(await running) == [0, 1, 2]
        assert set(replicas.outstanding_tokens.values()) == {0}


async def test_a_replica_that_is_slow_because_all_are_is_not_hedged() -> None:
    both = Slow(), Slow()
    async with (
        serve(add, both[0]) as first,
        serve(add, both[1]) as second,
        accord.Replicas([first, second], hedge_seconds=0.1) as replicas,
    ):
        running = asyncio.create_task(collect(replicas.generate(["a"] * 8, sampling=SAMPLING, timeout=60), []))
        await asyncio.sleep(0.8)
        assert [len(engine.requests) for engine in both] == [1, 1]
        assert replicas.hedged_samples == 0
        for engine in both:
            engine.go.set()
        assert indices(await running) == list(range(8))
    with pytest.raises(InvalidArgument):
        accord.Replicas(["127.0.0.1:1"], hedge_seconds=0)


async def test_a_hedge_that_is_lost_leaves_the_slow_one_to_answer() -> None:
    """And where the slow one is lost instead, what the hedge draws already is not asked for a third time."""
    for first_gone in (False, True):
        slow, dying = Slow(gone=first_gone), Slow(gone=not first_gone)
        async with (
            serve(add, slow) as first,
            serve(add, dying) as second,
            accord.Replicas([first], hedge_seconds=0.2, rest_seconds=30) as replicas,
        ):
            running = asyncio.create_task(collect(replicas.generate(["a"] * 3, sampling=SAMPLING, timeout=60), []))
            while not slow.requests:  # noqa: ASYNC110  the server tells, it does not signal
                await asyncio.sleep(0.01)
            replicas.add(second)
            while not dying.requests:  # noqa: ASYNC110  the server tells, it does not signal
                await asyncio.sleep(0.01)
            (slow if first_gone else dying).go.set()
            await asyncio.sleep(1.0)
            (dying if first_gone else slow).go.set()
            assert indices(await running) == [0, 1, 2]
            kept = dying if first_gone else slow
            assert len(kept.requests) == 1


async def test_a_session_stays_with_its_replica_and_moves_only_when_that_is_lost() -> None:
    engines = [Engine() for _ in range(3)]
    names = [f"conversation-{i}" for i in range(12)]
    async with AsyncExitStack() as stack:
        addresses = [await stack.enter_async_context(serve(add, engine)) for engine in engines]
        replicas = await stack.enter_async_context(accord.Replicas(addresses))

        async def where() -> dict[str, int]:
            for engine in engines:
                engine.requests.clear()
            found = await collect(replicas.generate(names, sampling=SAMPLING, sessions=names, timeout=60), [])
            assert indices(found) == list(range(12))
            return {
                names[index]: number
                for number, engine in enumerate(engines)
                for request in engine.requests
                for index in asked(request)
            }

        first = await where()
        assert len(set(first.values())) > 1
        assert await where() == first
        gone = first[names[0]]
        await replicas.remove(addresses[gone])
        then = await where()
        assert {name: at for name, at in then.items() if first[name] != gone} == {
            name: at for name, at in first.items() if at != gone
        }
        replicas.add(addresses[gone])
        assert await where() == first
        with pytest.raises(InvalidArgument):
            await collect(replicas.generate(["a"], sampling=SAMPLING, sessions=["x", "y"], timeout=60), [])


async def test_one_that_is_taken_out_before_it_was_asked_loses_nothing() -> None:
    first, second = Engine(), Engine()
    async with serve(add, first) as one, serve(add, second) as two, accord.Replicas([one]) as replicas:
        running = asyncio.create_task(collect(replicas.generate(["a"] * 2, sampling=SAMPLING, timeout=60), []))
        while not replicas.outstanding_tokens[one]:  # noqa: ASYNC110  until the other task has got that far
            await asyncio.sleep(0)
        replicas.add(two)
        await replicas.remove(one, timeout=0)
        assert indices(await running) == [0, 1]
        assert replicas.outstanding_tokens == {two: 0}
