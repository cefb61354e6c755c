"""UpdateWeights: verified before they serve, once for each request_id; the old ones stay whenever anything fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.support.recompute import recomputed_logprobs
from tests.support.rollout import generate, generate_request, rollout_service, samples, until_pending, weights_ref
from tests.support.tiny import make_tiny_model

from accord.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1


def update(ref: types_v1.WeightsRef, request_id: str = "update", **changes: str) -> rollout_v1.UpdateWeightsRequest:
    return rollout_v1.UpdateWeightsRequest(request_id=request_id, weights=ref, **changes)


async def test_a_service_without_weights_waits_for_them(tmp_path: Path, tiny_folder: Path) -> None:
    async with rollout_service(tmp_path) as (stub, _):
        status = await stub.GetStatus(rollout_v1.GetStatusRequest())
        assert not status.ready
        assert status.engine == "transformers"
        with pytest.raises(FailedPrecondition) as refused:
            await generate(stub, generate_request(["hello"]))
        assert refused.value.reason == "NO_WEIGHTS"
        ref = weights_ref(tiny_folder, version=4)
        response = await stub.UpdateWeights(update(ref))
        assert (response.version, response.digest) == (4, ref.digest)
        status = await stub.GetStatus(rollout_v1.GetStatusRequest())
        assert (status.ready, status.version, status.digest) == (True, 4, ref.digest)
        assert (status.max_context_tokens, status.compute_dtype, status.compute_threads) == (256, "float32", 1)
        found = await samples(stub, generate_request(["hello"], version=4))
        assert found[0].segments[0].version == 4


async def test_new_weights_make_the_next_samples(tmp_path: Path, tiny_folder: Path) -> None:
    other = make_tiny_model(tmp_path / "other", seed=3)
    async with rollout_service(tmp_path, model=tiny_folder) as (stub, _):
        before = await samples(stub, generate_request(["hello"]))
        await stub.UpdateWeights(update(weights_ref(other, version=1)))
        after = await samples(stub, generate_request(["hello"], version=1))
        assert after[0].segments[0].digest == weights_ref(other).digest
        held = (await stub.GetStatus(rollout_v1.GetStatusRequest())).resident_weights
        assert held.digest == weights_ref(other).digest, "the module holds something else than was published"
        assert after[0].response_token_ids != before[0].response_token_ids
        assert list(after[0].logprobs) == pytest.approx(
            recomputed_logprobs(other, list(after[0].prompt_token_ids), list(after[0].response_token_ids)), abs=1e-4
        )


async def test_a_wrong_digest_leaves_the_old_weights_serving(tmp_path: Path, tiny_folder: Path) -> None:
    other = make_tiny_model(tmp_path / "other", seed=3)
    async with rollout_service(tmp_path, model=tiny_folder) as (stub, _):
        before = await samples(stub, generate_request(["hello"]))
        with pytest.raises(FailedPrecondition) as refused:
            await stub.UpdateWeights(update(weights_ref(other, version=1, digest="0" * 64)))
        assert refused.value.reason == "DIGEST_MISMATCH"
        assert await samples(stub, generate_request(["hello"], version=0)) == before
        assert (await stub.UpdateWeights(update(weights_ref(other, version=1)))).version == 1, "the id was not freed"


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"uri": "file:///nowhere/at/all"}, NotFound, "WEIGHTS_NOT_FOUND"),
        ({"uri": "s4://bucket/model"}, InvalidArgument, "INVALID_ARGUMENT"),
        ({"format": "adapter"}, InvalidArgument, "INVALID_ARGUMENT"),
        ({"format": "zip"}, InvalidArgument, "INVALID_ARGUMENT"),
    ],
)
async def test_weights_that_cannot_be_fetched_leave_the_old_serving(
    tmp_path: Path, tiny_folder: Path, changes: dict[str, str], error: type[Exception], reason: str
) -> None:
    async with rollout_service(tmp_path, model=tiny_folder) as (stub, _):
        with pytest.raises(error) as refused:
            await stub.UpdateWeights(update(weights_ref(tiny_folder, version=1, **changes)))
        assert refused.value.reason == reason  # type: ignore[attr-defined]
        assert await samples(stub, generate_request(["hello"], version=0))


async def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    bare = make_tiny_model(tmp_path / "bare", seed=3)
    for file in bare.glob("tokenizer*"):
        file.unlink()
    async with rollout_service(tmp_path, model=tiny_folder) as (stub, _):
        with pytest.raises(InvalidArgument) as refused:
            await stub.UpdateWeights(update(weights_ref(bare, version=1)))
        assert refused.value.reason == "BAD_TOKENIZER"
        assert await samples(stub, generate_request(["hello"], version=0))


async def test_repeating_an_update_does_nothing_twice(tmp_path: Path, tiny_folder: Path) -> None:
    other = make_tiny_model(tmp_path / "other", seed=3)
    async with rollout_service(tmp_path) as (stub, _):
        first = await stub.UpdateWeights(update(weights_ref(tiny_folder, version=1), "a"))
        await stub.UpdateWeights(update(weights_ref(other, version=2), "b"))
        assert await stub.UpdateWeights(update(weights_ref(tiny_folder, version=1), "a")) == first
        assert (await stub.GetStatus(rollout_v1.GetStatusRequest())).version == 2
        with pytest.raises(AlreadyExists) as refused:
            await stub.UpdateWeights(update(weights_ref(other, version=9), "a"))
        assert refused.value.reason == "REQUEST_ID_REUSED"


async def test_an_update_lets_the_running_request_finish_with_its_weights(tmp_path: Path, tiny_folder: Path) -> None:
    other = make_tiny_model(tmp_path / "other", seed=3)
    async with rollout_service(tmp_path, model=tiny_folder, max_batch_size=8) as (stub, _):
        long = generate_request(
            ["hello"], n=48, sampling=types_v1.SamplingParams(max_new_tokens=40, temperature=0.5), version=0
        )
        undisturbed = await samples(stub, long)
        running = asyncio.create_task(samples(stub, long))
        await until_pending(stub, 48)
        await stub.UpdateWeights(update(weights_ref(other, version=1)))
        found = await running
        assert found == undisturbed
        assert {segment.version for sample in found.values() for segment in sample.segments} == {0}
        assert (await stub.GetStatus(rollout_v1.GetStatusRequest())).version == 1
