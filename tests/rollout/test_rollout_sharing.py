"""Many callers, one engine: queue limit, cancellation, leases."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.support.rollout import generate_request, pending, rollout_service, samples, until_pending, weights_ref

from accord.errors import FailedPrecondition, ResourceExhausted
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1

LONG = types_v1.SamplingParams(max_new_tokens=200, temperature=0.5)


async def test_cancelling_frees_the_engine_and_the_queue(tmp_path: Path, tiny_folder: Path) -> None:
    async with rollout_service(tmp_path, model=tiny_folder, max_batch_size=64) as (stub, _):
        call = stub.Generate(generate_request(["hello"], n=640, sampling=LONG))
        waiting = stub.Generate(generate_request(["hello"], "waits", n=5, sampling=LONG))
        reader, other = asyncio.ensure_future(call.read()), asyncio.ensure_future(waiting.read())
        await until_pending(stub, 645)
        waiting.cancel()
        await until_pending(stub, 640)
        call.cancel()
        await asyncio.gather(reader, other, return_exceptions=True)
        await until_pending(stub, 0)
        async with asyncio.timeout(2):
            assert len(await samples(stub, generate_request(["hello"], "next"))) == 1


async def test_a_full_queue_is_refused_at_once(tmp_path: Path, tiny_folder: Path) -> None:
    async with rollout_service(tmp_path, model=tiny_folder, max_pending_samples=10) as (stub, _):
        call = stub.Generate(generate_request(["hello"], n=32, sampling=LONG))
        reader = asyncio.ensure_future(call.read())
        await until_pending(stub, 32)
        with pytest.raises(ResourceExhausted) as refused:
            await samples(stub, generate_request(["hello"], "second"))
        assert refused.value.reason == "OVERLOADED"
        assert refused.value.metadata == {"pending_samples": "32", "limit": "10"}
        call.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await until_pending(stub, 0)
        assert await samples(stub, generate_request(["hello"], "second"))


async def test_samples_stream_as_batches_finish(tmp_path: Path, tiny_folder: Path) -> None:
    async with rollout_service(tmp_path, model=tiny_folder, max_batch_size=2) as (stub, _):
        call = stub.Generate(generate_request(["hello"], n=40, sampling=LONG))
        first = await call.read()
        assert first is not grpc.aio.EOF
        assert 0 < await pending(stub) < 40
        call.cancel()
        await until_pending(stub, 0)


async def test_concurrent_requests_do_not_change_each_other(tmp_path: Path, tiny_folder: Path) -> None:
    async with rollout_service(tmp_path, model=tiny_folder) as (stub, _):
        requests = [generate_request([f"prompt {i}", "hello"], f"r{i}", n=2) for i in range(4)]
        alone = [await samples(stub, request) for request in requests]
        together = await asyncio.gather(*(samples(stub, request) for request in requests))
        assert together == alone


async def test_a_lease_held_by_another_refuses_generation_and_updates(tmp_path: Path, tiny_folder: Path) -> None:
    async with rollout_service(tmp_path, model=tiny_folder) as (stub, _):
        acquire = rollout_v1.AcquireLeaseRequest(holder="runs/one", ttl=Duration(seconds=60))
        lease = (await stub.AcquireLease(acquire)).lease
        update = rollout_v1.UpdateWeightsRequest(request_id="u", weights=weights_ref(tiny_folder, version=1))
        for call in (
            lambda: samples(stub, generate_request(["hello"])),
            lambda: stub.UpdateWeights(update),
            lambda: stub.AcquireLease(rollout_v1.AcquireLeaseRequest(holder="runs/two", ttl=Duration(seconds=60))),
        ):
            with pytest.raises(FailedPrecondition) as refused:
                await call()
            assert (refused.value.reason, refused.value.metadata["holder"]) == ("LEASE_HELD", "runs/one")
        assert await samples(stub, generate_request(["hello"], lease_token=lease.token))
        shown = (await stub.GetStatus(rollout_v1.GetStatusRequest())).lease
        assert (shown.holder, shown.token) == ("runs/one", "")
        await stub.ReleaseLease(rollout_v1.ReleaseLeaseRequest(token=lease.token))
        assert await samples(stub, generate_request(["hello"]))
