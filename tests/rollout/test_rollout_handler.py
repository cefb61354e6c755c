"""The order of requests and updates, step by step, on an engine that the test holds and lets go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
from tests.support.rollout import generate_request

from accord.errors import DataLoss, FailedPrecondition, Internal
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_rollout.engine import (
    Activate,
    Completion,
    Failed,
    Finish,
    Job,
    ModelInfo,
    ResidentWeights,
    Sampling,
    Weights,
    WeightSpan,
)
from accord_rollout.handler import RolloutHandler


class SteeredEngine:
    """Answers every job with the number of the active model, once `go` is set; loses the jobs in `lost`."""

    compute_dtype = "float32"
    compute_threads = 1
    max_concurrent_requests = 1

    def __init__(self, lost: Sequence[int] = (), updates_in_flight: bool = False) -> None:
        self.go, self.prepared, self.generating = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.lost = lost
        self.updates_in_flight = updates_in_flight
        self.model = 0
        self.check, self.found = asyncio.Event(), ResidentWeights()
        self.check.set()
        self.weights: list[Weights] = []

    async def prepare(self, folder: Path, weights: Weights) -> Activate:
        self.prepared.set()

        async def activate() -> ModelInfo:
            self.model += 1
            self.weights.append(weights)
            return ModelInfo("fingerprint", max_context_tokens=100, vocabulary_size=10)

        return activate

    async def resident_weights(self) -> ResidentWeights:
        await self.check.wait()
        return self.found

    def render(self, conversation: types_v1.Conversation) -> list[int]:
        return [1]

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(token_ids)

    async def generate(self, jobs: Sequence[Job], sampling: Sampling) -> AsyncGenerator[Completion | Failed, None]:
        for job in jobs:
            first, before = self.model, self.weights[-1]
            self.generating.set()
            await self.go.wait()
            if self.model != first:
                spans = (WeightSpan(0, before), WeightSpan(1, self.weights[-1]))
                yield Completion(job.index, (first, self.model), (0.0, 0.0), Finish.LENGTH, spans)
            elif job.index not in self.lost:
                yield Completion(job.index, (self.model,), (0.0,), Finish.LENGTH, (WeightSpan(0, before),))

    async def close(self) -> None:
        self.go.set()


async def served(engine: SteeredEngine, tmp_path: Path) -> RolloutHandler:
    handler = RolloutHandler(engine, engine_name="steered", cache=tmp_path)
    await handler.install(tmp_path, version=1, digest="first")
    engine.prepared.clear()
    return handler


async def collect(handler: RolloutHandler, request: rollout_v1.GenerateRequest) -> list[types_v1.Sample]:
    return [response.sample async for response in handler.generate(request)]


async def taken_in(handler: RolloutHandler, samples: int) -> None:
    async with asyncio.timeout(5):
        while handler.status().pending_samples < samples:  # noqa: ASYNC110  the handler tells, it does not signal
            await asyncio.sleep(0)


async def test_an_update_waits_for_running_requests_and_later_requests_wait_for_it(tmp_path: Path) -> None:
    engine = SteeredEngine()
    handler = await served(engine, tmp_path)
    running = asyncio.create_task(collect(handler, generate_request(["a"], "running", n=3, version=1)))
    await taken_in(handler, 3)
    update = asyncio.create_task(handler.install(tmp_path, version=2, digest="second"))
    await engine.prepared.wait()
    await asyncio.sleep(0)  # the update waits for the lock
    pinned = asyncio.create_task(collect(handler, generate_request(["a"], "pinned", version=1)))
    later = asyncio.create_task(collect(handler, generate_request(["a"], "later")))
    await taken_in(handler, 5)
    assert handler.status().version == 1
    assert not update.done()
    engine.go.set()
    first = await running
    assert [list(sample.response_token_ids) for sample in first] == [[1]] * 3
    assert {segment.digest for sample in first for segment in sample.segments} == {"first"}
    with pytest.raises(FailedPrecondition) as refused:
        await pinned
    assert refused.value.reason == "VERSION_MISMATCH"
    (sample,) = await later
    assert (list(sample.response_token_ids), sample.segments[0].version) == ([2], 2)
    assert handler.status().pending_samples == 0
    await update


async def test_an_update_in_flight_changes_requests_that_name_no_version_and_waits_for_those_that_do(
    tmp_path: Path,
) -> None:
    engine = SteeredEngine(updates_in_flight=True)
    handler = await served(engine, tmp_path)
    free = asyncio.create_task(collect(handler, generate_request(["a"], "free")))
    await engine.generating.wait()
    engine.generating.clear()
    await asyncio.wait_for(handler.install(tmp_path, version=2, digest="second"), 5)
    pinned = asyncio.create_task(collect(handler, generate_request(["a"], "pinned", version=2)))
    await engine.generating.wait()
    engine.prepared.clear()
    update = asyncio.create_task(handler.install(tmp_path, version=3, digest="third"))
    await engine.prepared.wait()
    await asyncio.sleep(0)
    assert handler.status().version == 2, "the update did not wait for the request that names version 2"
    engine.go.set()
    (mixed,), (pure,) = await free, await pinned
    assert [(s.start, s.version, s.digest) for s in mixed.segments] == [(0, 1, "first"), (1, 2, "second")]
    assert [(s.start, s.version) for s in pure.segments] == [(0, 2)]
    await update
    assert handler.status().version == 3


async def test_an_engine_that_holds_other_weights_than_were_meant_serves_nothing(tmp_path: Path) -> None:
    engine = SteeredEngine()
    engine.go.set()
    handler = await served(engine, tmp_path)
    engine.found = ResidentWeights(digest="another")
    with pytest.raises(DataLoss) as found:
        await handler.install(tmp_path, version=2, digest="second")
    assert found.value.reason == "HELD_WEIGHTS_DIFFER"
    with pytest.raises(FailedPrecondition, match="no weights"):
        await collect(handler, generate_request(["a"]))
    engine.found = ResidentWeights(digest="third")
    await handler.install(tmp_path, version=3, digest="third")
    assert len(await collect(handler, generate_request(["a"]))) == 1


async def test_a_cancelled_update_lets_the_next_request_pass(tmp_path: Path) -> None:
    engine = SteeredEngine()
    handler = await served(engine, tmp_path)
    running = asyncio.create_task(collect(handler, generate_request(["a"], "running")))
    await taken_in(handler, 1)
    update = asyncio.create_task(handler.install(tmp_path, version=2, digest="second"))
    await engine.prepared.wait()
    await asyncio.sleep(0)
    update.cancel()
    engine.go.set()
    await running
    async with asyncio.timeout(2):
        (sample,) = await collect(handler, generate_request(["a"], "next"))
    assert sample.segments[0].version == 1


async def test_a_caller_that_does_not_read_does_not_hold_the_engine(tmp_path: Path) -> None:
    engine = SteeredEngine()
    engine.go.set()
    handler = await served(engine, tmp_path)
    slow = handler.generate(generate_request(["a"], "slow", n=4))
    await anext(slow)
    async with asyncio.timeout(2):
        assert len(await collect(handler, generate_request(["a"], "quick"))) == 1
    assert len([response async for response in slow]) == 3


async def test_an_engine_that_loses_a_sample_is_found_out(tmp_path: Path) -> None:
    engine = SteeredEngine(lost=[1])
    engine.go.set()
    handler = await served(engine, tmp_path)
    with pytest.raises(Internal) as found:
        await collect(handler, generate_request(["a"], n=3))
    assert found.value.reason == "ENGINE_FAULT"
    assert handler.status().pending_samples == 0


async def test_no_sample_leaves_before_the_resident_weights_are_checked(tmp_path: Path) -> None:
    engine = SteeredEngine()
    engine.go.set()
    handler = await served(engine, tmp_path)
    engine.check.clear()
    update = asyncio.create_task(handler.install(tmp_path, version=2, digest="second"))
    while handler.status().version != 2:  # noqa: ASYNC110  the handler tells, it does not signal
        await asyncio.sleep(0)
    early = asyncio.create_task(collect(handler, generate_request(["a"], "early")))
    await engine.generating.wait()
    await asyncio.sleep(0.05)
    assert not early.done(), "the sample left unseen"
    engine.found = ResidentWeights(digest="third")
    engine.check.set()
    for task in (early, update):
        with pytest.raises(DataLoss) as refused:
            await task
        assert refused.value.reason == "HELD_WEIGHTS_DIFFER"
    assert not handler.status().ready


async def test_an_activation_that_fails_leaves_no_weights_rather_than_unknown_ones(tmp_path: Path) -> None:
    engine = SteeredEngine()
    engine.go.set()
    handler = await served(engine, tmp_path)
    engine.weights = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        await handler.install(tmp_path, version=2, digest="second")
    assert not handler.status().ready
    engine.weights = []
    await handler.install(tmp_path, version=3, digest="third")
    with pytest.raises(FailedPrecondition) as refused:
        await collect(handler, generate_request(["a"], "too new", min_version=4))
    assert refused.value.reason == "VERSION_MISMATCH"
    assert await collect(handler, generate_request(["a"], "new enough", min_version=2))
