"""PrepareWeights while the old weights serve, ActivateWeights in a pause: listed, refused, discarded, once only."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.support.rollout import generate_request, rollout_service, samples, until_pending, weights_ref
from tests.support.tiny import make_tiny_model

from accord.errors import AlreadyExists, FailedPrecondition, ResourceExhausted
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1


def prepare(ref: types_v1.WeightsRef, request_id: str = "prepare") -> rollout_v1.PrepareWeightsRequest:
    return rollout_v1.PrepareWeightsRequest(request_id=request_id, weights=ref)


def activate(version: int, request_id: str = "activate") -> rollout_v1.ActivateWeightsRequest:
    return rollout_v1.ActivateWeightsRequest(request_id=request_id, version=version)


async def status(stub: rollout_v1.RolloutServiceStub) -> rollout_v1.GetStatusResponse:
    return await stub.GetStatus(rollout_v1.GetStatusRequest())


async def test_prepared_weights_wait_beside_the_serving_ones_until_they_are_activated(
    tmp_path: Path, tiny_folder: Path
) -> None:
    ref = weights_ref(make_tiny_model(tmp_path / "other", seed=3), version=1)
    async with rollout_service(tmp_path, model=tiny_folder) as (stub, _):
        before = await samples(stub, generate_request(["hello"], version=0))
        response = await stub.PrepareWeights(prepare(ref))
        assert (response.prepared.version, response.prepared.digest, response.prepared.uri) == (1, ref.digest, ref.uri)
        assert [one.version for one in (await status(stub)).prepared] == [1]
        assert await samples(stub, generate_request(["hello"], version=0)) == before
        activated = await stub.ActivateWeights(activate(1))
        assert (activated.version, activated.digest, activated.resident_weights.digest) == (1, ref.digest, ref.digest)
        after = await status(stub)
        assert (after.version, after.digest, list(after.prepared)) == (1, ref.digest, [])
        found = await samples(stub, generate_request(["hello"], version=1))
        assert found[0].segments[0].digest == ref.digest
        assert found[0].response_token_ids != before[0].response_token_ids


async def test_what_is_not_prepared_cannot_be_activated(tmp_path: Path, tiny_folder: Path) -> None:
    async with rollout_service(tmp_path, model=tiny_folder) as (stub, _):
        with pytest.raises(FailedPrecondition) as refused:
            await stub.ActivateWeights(activate(0))
        assert refused.value.reason == "NOT_PREPARED"
        assert (await status(stub)).version == 0


async def test_corrupt_weights_are_refused_before_activation(tmp_path: Path, tiny_folder: Path) -> None:
    other = make_tiny_model(tmp_path / "other", seed=3)
    ref = weights_ref(other, version=1)
    damaged = bytearray((other / "model.safetensors").read_bytes())
    damaged[-5] ^= 1
    (other / "model.safetensors").write_bytes(damaged)
    async with rollout_service(tmp_path, model=tiny_folder) as (stub, _):
        with pytest.raises(FailedPrecondition) as refused:
            await stub.PrepareWeights(prepare(ref))
        assert refused.value.reason == "DIGEST_MISMATCH"
        assert not (await status(stub)).prepared
        assert await samples(stub, generate_request(["hello"], version=0))


async def test_a_file_that_changes_after_preparation_does_not_reach_the_engine(
    tmp_path: Path, tiny_folder: Path
) -> None:
    other = make_tiny_model(tmp_path / "other", seed=3)
    ref = weights_ref(other, version=1)
    async with rollout_service(tmp_path, model=tiny_folder) as (stub, _):
        await stub.PrepareWeights(prepare(ref))
        with (other / "model.safetensors").open("r+b") as file:
            file.seek(-4000, 2)
            file.write(bytes(4000))
        assert (await stub.ActivateWeights(activate(1))).resident_weights.digest == ref.digest


async def test_discarded_weights_are_gone_and_make_room(tmp_path: Path, tiny_folder: Path) -> None:
    async with rollout_service(tmp_path, model=tiny_folder, max_prepared_versions=1) as (stub, _):
        await stub.PrepareWeights(prepare(weights_ref(tiny_folder, version=1), "1"))
        with pytest.raises(ResourceExhausted) as full:
            await stub.PrepareWeights(prepare(weights_ref(tiny_folder, version=2), "2"))
        assert full.value.reason == "TOO_MANY_PREPARED"
        for request_id in ("d1", "d2"):  # the second time does nothing
            await stub.DiscardWeights(rollout_v1.DiscardWeightsRequest(request_id=request_id, version=1))
        with pytest.raises(FailedPrecondition):
            await stub.ActivateWeights(activate(1))
        await stub.PrepareWeights(prepare(weights_ref(tiny_folder, version=2), "3"))


async def test_a_version_is_prepared_once_and_never_with_two_digests(tmp_path: Path, tiny_folder: Path) -> None:
    other = make_tiny_model(tmp_path / "other", seed=3)
    async with rollout_service(tmp_path, model=tiny_folder) as (stub, _):
        first = await stub.PrepareWeights(prepare(weights_ref(other, version=1), "1"))
        assert await stub.PrepareWeights(prepare(weights_ref(other, version=1), "2")) == first
        with pytest.raises(AlreadyExists) as refused:
            await stub.PrepareWeights(prepare(weights_ref(tiny_folder, version=1), "3"))
        assert refused.value.reason == "VERSION_PREPARED"


async def test_activation_waits_for_running_requests_where_the_engine_cannot_change_weights_under_them(
    tmp_path: Path, tiny_folder: Path
) -> None:
    other = make_tiny_model(tmp_path / "other", seed=3)
    async with rollout_service(tmp_path, model=tiny_folder, max_batch_size=8) as (stub, _):
        assert not (await status(stub)).updates_in_flight
        await stub.PrepareWeights(prepare(weights_ref(other, version=1)))
        long = generate_request(["hello"], n=32, sampling=types_v1.SamplingParams(max_new_tokens=40))
        running = asyncio.create_task(samples(stub, long))
        await until_pending(stub, 32)
        await stub.ActivateWeights(activate(1))
        assert {one.version for sample in (await running).values() for one in sample.segments} == {0}
