"""Weights from a real S3 server, with endpoint and credentials from the environment."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store
from tests.support.rollout import generate_request, rollout_service, samples, weights_ref

from accord.digest import weights_digest
from accord.errors import AccordError, FailedPrecondition, NotFound, PermissionDenied, Unavailable
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_runtime.artifacts.fetch import fetch
from accord_runtime.artifacts.transfer import Limits

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-s3" / "bin" / "python"
Put = Callable[..., str]
LIMITS = Limits(total_seconds=30, stall_seconds=5)
DIGEST = "1" * 64


@dataclass(frozen=True)
class Server:
    """An S3 server process."""

    process: subprocess.Popen[bytes]
    endpoint: str


@contextmanager
def running(log: Path, **environment: str) -> Iterator[Server]:
    """moto's, on a free port."""
    if not PYTHON.exists():
        pytest.skip("no S3 server is installed here: make install-s3-server")
    with log.open("w") as out:
        command = [str(PYTHON), "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **environment})
    try:
        yield Server(process, endpoint_in(log, process))
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("s3") / "log") as found:
        yield found


def endpoint_in(log: Path, process: subprocess.Popen[bytes]) -> str:
    for _ in range(600):
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
            return found[0]
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"no S3 server came up: {log.read_text()}")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment with the usual credentials of S3."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return monkeypatch


@pytest.fixture
def put(server: Server, environment: pytest.MonkeyPatch) -> Iterator[Put]:
    """Puts a folder below s3://models, its weights with the content `model` where that is given; gives the URI."""
    environment.setenv("AWS_ENDPOINT_URL", server.endpoint)
    urllib.request.urlopen(urllib.request.Request(f"{server.endpoint}/models", method="PUT"))
    store = S3Store("models", client_options={"allow_http": True})

    def upload(folder: Path, prefix: str, model: bytes = b"") -> str:
        for name, content in files(folder).items():
            obstore.put(store, f"{prefix}/{name}", model if model and name == "model.safetensors" else content)
        return f"s3://models/{prefix}"

    yield upload
    obstore.delete(store, [one["path"] for batch in obstore.list(store) for one in batch])


def update(ref: types_v1.WeightsRef, request_id: str) -> rollout_v1.UpdateWeightsRequest:
    return rollout_v1.UpdateWeightsRequest(request_id=request_id, weights=ref)


def damaged(folder: Path) -> bytes:
    """The folder's weights with one bit changed."""
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    return bytes(content)


async def test_a_rollout_service_serves_weights_from_s3_and_refuses_others(
    put: Put, tmp_path: Path, tiny_folder: Path
) -> None:
    uri = put(tiny_folder, "run/v1", model=damaged(tiny_folder))
    ref = weights_ref(tiny_folder, version=1, uri=uri)
    async with rollout_service(tmp_path) as (stub, _):
        with pytest.raises(FailedPrecondition) as refused:
            await stub.UpdateWeights(update(ref, "damaged"), timeout=60)
        assert refused.value.reason == "DIGEST_MISMATCH"
        assert not (await stub.GetStatus(rollout_v1.GetStatusRequest())).ready

        put(tiny_folder, "run/v1")
        response = await stub.UpdateWeights(update(ref, "whole"), timeout=60)
        assert (response.uri, response.resident_weights.digest) == (ref.uri, ref.digest)
        (sample,) = (await samples(stub, generate_request(["hello"], version=1))).values()
        assert sample.segments[0].digest == ref.digest
        assert files(tmp_path / "cache" / ref.digest) == files(tiny_folder)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


async def test_an_object_that_is_damaged_or_cut_short_is_never_used_and_the_next_source_is(
    put: Put, tmp_path: Path, tiny_folder: Path
) -> None:
    content = (tiny_folder / "model.safetensors").read_bytes()
    contents = {"damaged": damaged(tiny_folder), "short": content[:-100], "garbage": b"x" * 100, "good": content}
    for name, content in contents.items():
        put(tiny_folder, name, model=content)
    ref = types_v1.WeightsRef(uri="s3://models/damaged", digest=weights_digest(tiny_folder))
    for name in ("damaged", "short", "garbage"):
        ref.uri = f"s3://models/{name}"
        # What came is removed, or it would be taken for the next source's.
        with pytest.raises(AccordError) as refused:
            await fetch(ref, tmp_path / "cache", LIMITS)
        assert refused.value.reason in ("DIGEST_MISMATCH", "WEIGHTS_DAMAGED"), refused.value
        assert not list((tmp_path / "cache").iterdir())
    ref.fallback_uris.append("s3://models/good")
    assert weights_digest(await fetch(ref, tmp_path / "cache", LIMITS)) == ref.digest


async def test_a_prefix_or_bucket_that_is_not_there_is_told(put: Put, tmp_path: Path) -> None:
    for uri in ("s3://models/none", "s3://nobodys-bucket/v1"):
        with pytest.raises(NotFound) as refused:
            await fetch(types_v1.WeightsRef(uri=uri, digest=DIGEST), tmp_path / "cache", LIMITS)
        assert refused.value.reason == "WEIGHTS_NOT_FOUND"
        assert uri in refused.value.message


async def test_whoever_may_not_read_is_told(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with running(tmp_path / "log", INITIAL_NO_AUTH_ACTION_COUNT="0") as strict:
        environment.setenv("AWS_ENDPOINT_URL", strict.endpoint)
        with pytest.raises(PermissionDenied) as refused:
            await fetch(types_v1.WeightsRef(uri="s3://models/v1", digest=DIGEST), tmp_path / "cache", LIMITS)
    assert "s3://models/v1" in refused.value.message
    assert len(refused.value.message) < 1000


async def test_an_endpoint_where_nobody_listens_ends_in_a_typed_error(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Unavailable) as refused:
        async with asyncio.timeout(60):
            await fetch(types_v1.WeightsRef(uri="s3://models/v1", digest=DIGEST), tmp_path / "cache", LIMITS)
    assert refused.value.reason in ("OBJECT_STORE", "TRANSFER_STALLED")
    assert not list((tmp_path / "cache").glob("*"))


async def test_a_server_that_hangs_is_given_up_and_holds_nothing_else_up(
    server: Server, put: Put, tmp_path: Path, tiny_folder: Path
) -> None:
    ref = types_v1.WeightsRef(uri=put(tiny_folder, "v1"), digest=weights_digest(tiny_folder))
    # More of them than threads that asyncio shares out.
    caches = [tmp_path / f"cache{number}" for number in range((os.cpu_count() or 1) + 6)]
    server.process.send_signal(signal.SIGSTOP)
    try:
        limits = Limits(total_seconds=30, stall_seconds=1)
        found = await asyncio.gather(*(fetch(ref, one, limits) for one in caches), return_exceptions=True)
        async with asyncio.timeout(20):
            await asyncio.to_thread(weights_digest, tiny_folder)
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert {(type(one), getattr(one, "reason", "")) for one in found} == {(Unavailable, "TRANSFER_STALLED")}
    assert not [path for cache in caches for path in cache.glob("*")]
    assert await fetch(ref, caches[0], LIMITS) == caches[0] / ref.digest
