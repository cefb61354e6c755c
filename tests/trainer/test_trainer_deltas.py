"""Deltas from step to step: a rollout service follows by them to the same digest, and by the whole where it cannot."""

from __future__ import annotations

import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError
from tests.support.rollout import rollout_service
from tests.support.trainer import rollout, trainer, training

import accord
from accord.digest import weights_digest
from accord.errors import InvalidArgument
from accord.rollout import v1 as rollout_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_trainer.settings import TrainerSettings

pytestmark = pytest.mark.process

# Of the tiny model a third is trained, so that there is something to leave out.
UPPER = {"trainable_layers": 1}


@asynccontextmanager
async def publishing(state_dir: Path, delta_below: float = 0.9) -> AsyncIterator[accord.Client]:
    """A trainer that publishes deltas, to fetch by grpc."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with trainer(state_dir, port=port, scheme="grpc", delta_below=delta_below) as client:
        yield client


def update(ref: types_v1.WeightsRef) -> rollout_v1.UpdateWeightsRequest:
    return rollout_v1.UpdateWeightsRequest(request_id=f"version-{ref.version}", weights=ref)


def artifact(state_dir: Path, uri: str) -> Path:
    """The folder that a trainer serves under `uri`."""
    return state_dir / "artifacts" / urlsplit(uri).path.strip("/")


async def stepped(
    client: accord.Client, state_dir: Path, last: trainer_v1.StepResult | None, folder: Path
) -> trainer_v1.StepResult:
    """The step after `last`, on samples of the weights that it published; the first on those of `folder`."""
    version, digest = (last.version, last.digest) if last else (0, "")
    samples = rollout(artifact(state_dir, last.weights.uri) if last else folder, version=version, digest=digest)
    put = await client.trainer.put_experience("t", samples=samples)
    return await client.trainer.step(
        "t", put.batch_id, parent_version=version, publish=True, request_id=f"step-{version}"
    )


async def test_a_rollout_service_follows_three_steps_by_what_they_changed(tiny_folder: Path, tmp_path: Path) -> None:
    state, last, came = tmp_path / "trainer", None, []
    async with publishing(state) as client, rollout_service(tmp_path / "a", model=tiny_folder) as (stub, _):
        await client.trainer.create_training(training(tiny_folder, options=UPPER))
        for _ in range(3):
            last = await stepped(client, state, last, tiny_folder)
            response = await stub.UpdateWeights(update(last.weights))
            assert response.digest == response.resident_weights.digest == last.digest
            assert last.digest == weights_digest(artifact(state, last.weights.uri))
            assert not response.failed_sources
            came.append(response.uri)
            if last.version > 1:
                assert 0 < last.metrics["delta_changed"] < 0.5
                assert last.metrics["delta_bytes"] < 0.9 * last.metrics["whole_bytes"]
                sent = sum(file.stat().st_size for file in artifact(state, last.weights.delta.uri).iterdir())
                assert sent == last.metrics["delta_bytes"]
        # The model that a training begins with is not published, so that its first version has no base.
        assert came == [f"{last.weights.uri.rsplit('/', 1)[0]}/{name}" for name in published(state)]

        # One that came in late has not the base.
        async with rollout_service(tmp_path / "b", model=tiny_folder) as (newcomer, _):
            response = await newcomer.UpdateWeights(update(last.weights))
        assert (response.uri, response.resident_weights.digest) == (last.weights.uri, last.digest)
        (failed,) = response.failed_sources
        assert (failed.uri, failed.failure.reason) == (last.weights.delta.uri, "BASE_MISSING")


def published(state: Path) -> list[str]:
    """Names of the artifacts that are the shortest way to versions 1, 2 and 3."""
    names = sorted(folder.name for folder in (state / "artifacts").iterdir())
    assert [name.endswith(".delta") for name in names] == [False, False, True, False, True]
    return [names[0], names[2], names[4]]


async def test_a_delta_that_is_gone_or_damaged_costs_nothing_but_the_way_to_the_whole(
    tiny_folder: Path, tmp_path: Path
) -> None:
    state = tmp_path / "trainer"
    async with publishing(state) as client, rollout_service(tmp_path / "a", model=tiny_folder) as (stub, _):
        await client.trainer.create_training(training(tiny_folder, options=UPPER))
        first = await stepped(client, state, None, tiny_folder)
        await stub.UpdateWeights(update(first.weights))
        second = await stepped(client, state, first, tiny_folder)
        file = artifact(state, second.weights.delta.uri) / "delta.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        response = await stub.UpdateWeights(update(second.weights))
        assert (response.uri, response.resident_weights.digest) == (second.weights.uri, second.digest)
        assert [one.failure.reason for one in response.failed_sources] == ["DIGEST_MISMATCH"]

        third = await stepped(client, state, second, tiny_folder)
        shutil.rmtree(artifact(state, third.weights.delta.uri))
        response = await stub.UpdateWeights(update(third.weights))
        assert (response.uri, response.resident_weights.digest) == (third.weights.uri, third.digest)
        assert [one.failure.reason for one in response.failed_sources] == ["ARTIFACT_NOT_FOUND"]


async def test_a_step_made_again_publishes_its_delta_again_or_does_without(tiny_folder: Path, tmp_path: Path) -> None:
    state, what = tmp_path / "trainer", training(tiny_folder, options=UPPER, checkpoint_every=2)
    async with publishing(state) as client:
        await client.trainer.create_training(what)
        first = await stepped(client, state, None, tiny_folder)
        second = await stepped(client, state, first, tiny_folder)
        third = await stepped(client, state, second, tiny_folder)
    # As if killed in step 3, which had written its delta in part.
    whole = artifact(state, third.weights.uri)
    shutil.rmtree(whole.with_name(f"{whole.name}.delta"))
    (whole.parent / f".{whole.name}.delta.x1").mkdir()
    async with publishing(state) as client:
        assert (await client.trainer.create_training(what)).version == 2
        again = await stepped(client, state, second, tiny_folder)
        assert (again.digest, again.weights.delta.base_digest) == (third.digest, second.digest)
        assert artifact(state, again.weights.delta.uri).is_dir()
        fourth = await stepped(client, state, again, tiny_folder)
        # What leads to a version that stays, stays; what was left half written does not.
        await client.trainer.free_artifacts([fourth.digest], ["t"])
        left = sorted(folder.name for folder in whole.parent.iterdir())
        assert left == [artifact(state, uri).name for uri in (fourth.weights.uri, fourth.weights.delta.uri)]
        # The base of the next may be gone: then it has the whole only.
        shutil.rmtree(artifact(state, fourth.weights.uri))
        put = await client.trainer.put_experience("t", samples=rollout(tiny_folder, version=4, digest=fourth.digest))
        fifth = await client.trainer.step("t", put.batch_id, parent_version=4, publish=True)
        assert not fifth.weights.HasField("delta")
        assert "delta_bytes" not in fifth.metrics
        assert artifact(state, fifth.weights.uri).is_dir()


async def test_a_delta_that_saves_too_little_is_measured_but_not_published(tiny_folder: Path, tmp_path: Path) -> None:
    state = tmp_path / "trainer"
    async with publishing(state, delta_below=0.5) as client:
        await client.trainer.create_training(training(tiny_folder))
        first = await stepped(client, state, None, tiny_folder)
        second = await stepped(client, state, first, tiny_folder)
        assert second.metrics["delta_bytes"] > 0.5 * second.metrics["whole_bytes"]
        assert not second.weights.HasField("delta")
        assert len(list((state / "artifacts").iterdir())) == 2


async def test_a_delta_without_a_whole_model_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    delta = types_v1.WeightsDelta(uri="file:///nowhere", base_digest="1" * 64)
    ref = types_v1.WeightsRef(
        uri=tiny_folder.as_uri(), version=1, digest=weights_digest(tiny_folder), format="adapter", base_version=0
    )
    ref.delta.CopyFrom(delta)
    async with rollout_service(tmp_path, model=tiny_folder) as (stub, _):
        with pytest.raises(InvalidArgument) as refused:
            await stub.UpdateWeights(update(ref))
        assert [violation.field for violation in refused.value.violations] == ["weights.delta"]
    with pytest.raises(ValidationError, match="needs --scheme grpc"):
        TrainerSettings(state_dir=tmp_path, delta_below=0.5)
