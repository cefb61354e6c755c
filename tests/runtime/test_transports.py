"""Weights on their way: a dead, slow or half-open peer, a damaged copy, and the next source in the list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.rollout import rollout_service, weights_ref
from tests.support.sdk import serve

from accord.artifact import v1 as artifact_v1
from accord.digest import weights_digest
from accord.errors import AccordError, DeadlineExceeded, NotFound, Unavailable
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_runtime.artifacts.fetch import fetch
from accord_runtime.artifacts.servicer import ArtifactServicer
from accord_runtime.artifacts.store import ArtifactStore
from accord_runtime.artifacts.transfer import Limits

pytestmark = pytest.mark.process

QUICK = Limits(total_seconds=20, stall_seconds=0.5)
DIGEST = "1" * 64


@asynccontextmanager
async def socket_that(answers: bytes) -> AsyncIterator[str]:
    """Accepts every connection, sends `answers` a byte at a time for ever, or nothing at all."""
    open_ones: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.append(writer)
        while answers and not writer.is_closing():
            writer.write(answers[:1])
            await asyncio.sleep(0.02)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in open_ones:
            writer.close()


class Trickle(artifact_v1.ArtifactServiceServicer):
    """Lists one file and sends `size` bytes of it every so often, without end."""

    def __init__(self, size: int) -> None:
        self._size = size

    async def GetArtifact(self, request: Any, context: Any) -> artifact_v1.GetArtifactResponse:
        return artifact_v1.GetArtifactResponse(files=[artifact_v1.ArtifactFile(path="model.safetensors", size_bytes=9)])

    async def ReadFile(self, request: Any, context: Any) -> AsyncIterator[artifact_v1.ReadFileResponse]:
        while True:
            yield artifact_v1.ReadFileResponse(data=bytes(self._size))
            await asyncio.sleep(0.02)


async def refusal(uri: str, cache: Path, limits: Limits = QUICK) -> AccordError:
    with pytest.raises(AccordError) as refused:
        async with asyncio.timeout(60):
            await fetch(types_v1.WeightsRef(uri=uri, digest=DIGEST), cache, limits)
    assert not list(cache.glob("*")), "a part was left behind"
    return refused.value


@pytest.mark.parametrize("answers", [b"", b"x"], ids=["never answers", "answers with noise"])
async def test_a_peer_that_accepts_and_is_no_service_ends_in_a_typed_error(tmp_path: Path, answers: bytes) -> None:
    async with socket_that(answers) as address:
        error = await refusal(f"grpc://{address}/model", tmp_path / "cache")
    assert isinstance(error, Unavailable)


async def test_a_peer_that_is_not_there_ends_in_a_typed_error(tmp_path: Path) -> None:
    async with socket_that(b"") as address:
        pass
    assert isinstance(await refusal(f"grpc://{address}/model", tmp_path / "cache"), Unavailable)


async def test_a_peer_that_trickles_is_given_up(tmp_path: Path) -> None:
    async with serve(artifact_v1.add_ArtifactServiceServicer_to_server, Trickle(1)) as address:
        error = await refusal(f"grpc://{address}/model", tmp_path / "cache")
    assert (type(error), error.reason) == (Unavailable, "TRANSFER_STALLED")


async def test_a_peer_that_never_ends_meets_the_deadline(tmp_path: Path) -> None:
    limits = Limits(total_seconds=2, stall_seconds=0.5, stall_bytes=1)
    async with serve(artifact_v1.add_ArtifactServiceServicer_to_server, Trickle(100)) as address:
        error = await refusal(f"grpc://{address}/model", tmp_path / "cache", limits)
    assert (type(error), error.reason) == (DeadlineExceeded, "FETCH_TIMEOUT")


async def test_a_rollout_service_gives_a_half_open_source_up_and_goes_on(tmp_path: Path, tiny_folder: Path) -> None:
    async with (
        socket_that(b"") as address,
        rollout_service(tmp_path, model=tiny_folder, fetch_stall_seconds=0.5) as (stub, _),
    ):
        ref = weights_ref(tiny_folder, version=1)
        nowhere = types_v1.WeightsRef(uri=f"grpc://{address}/m", digest=ref.digest, version=1)
        with pytest.raises(Unavailable):
            await stub.PrepareWeights(rollout_v1.PrepareWeightsRequest(request_id="a", weights=nowhere), timeout=60)
        nowhere.fallback_uris.extend([f"grpc://{address}/n", ref.uri])
        response = await stub.UpdateWeights(
            rollout_v1.UpdateWeightsRequest(request_id="b", weights=nowhere), timeout=60
        )
        assert (response.version, response.uri) == (1, ref.uri)
        assert [one.uri for one in response.failed_sources] == [nowhere.uri, f"grpc://{address}/n"]
        assert {one.failure.reason for one in response.failed_sources} <= {"TRANSFER_STALLED", "UNAVAILABLE"}


async def test_a_source_with_other_weights_is_passed_over_and_the_last_error_names_the_others(
    tmp_path: Path, tiny_folder: Path
) -> None:
    cache = tmp_path / "cache"
    ref = types_v1.WeightsRef(uri=tiny_folder.as_uri(), digest=DIGEST, fallback_uris=["file:///nowhere"])
    with pytest.raises(NotFound, match="DIGEST_MISMATCH"):
        await fetch(ref, cache)
    ref = types_v1.WeightsRef(uri="bogus://x", digest=weights_digest(tiny_folder), fallback_uris=[str(tiny_folder)])
    assert await fetch(ref, cache) == tiny_folder


class Flaky(ArtifactServicer):
    """Breaks every stream after its first message."""

    async def ReadFile(self, request: Any, context: Any) -> AsyncIterator[artifact_v1.ReadFileResponse]:
        async for message in super().ReadFile(request, context):
            yield message
            raise Unavailable("the network went away")


async def test_a_broken_stream_goes_on_where_it_stopped(tmp_path: Path) -> None:
    published = tmp_path / "published" / "v1"
    published.mkdir(parents=True)
    header = b'{"x":{"dtype":"U8","shape":[9000000],"data_offsets":[0,9000000]}}'
    data = len(header).to_bytes(8, "little") + header + bytes(range(250)) * 36000
    (published / "model.safetensors").write_bytes(data)
    servicer = Flaky(ArtifactStore(tmp_path / "published"))
    async with serve(artifact_v1.add_ArtifactServiceServicer_to_server, servicer) as address:
        ref = types_v1.WeightsRef(uri=f"grpc://{address}/v1", digest=weights_digest(published))
        folder = await fetch(ref, tmp_path / "cache")
    assert (folder / "model.safetensors").read_bytes() == data
