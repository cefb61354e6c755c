"""Leases, atomic files, digests, artifacts, plugins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.runtime.test_server import Artifacts

from accord import atomic, plugins
from accord.digest import content_digest, weights_digest
from accord.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from accord.types import v1 as types_v1
from accord_runtime.artifacts.fetch import fetch
from accord_runtime.artifacts.store import CHUNK_BYTES
from accord_runtime.serving.leases import LeaseTable
from accord_runtime.serving.server import serving
from accord_runtime.serving.settings import ServiceSettings


def _safetensors(path: Path, tensors: dict[str, bytes]) -> None:
    """Writes float32 vectors in the safetensors layout, in the order given."""
    header, data = {}, b""
    for name, raw in tensors.items():
        header[name] = {"dtype": "F32", "shape": [len(raw) // 4], "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_the_digest_is_of_the_tensors_not_of_the_file(tmp_path: Path) -> None:
    _safetensors(tmp_path / "a" / "model.safetensors", {"x": b"1234", "y": b"5678"})
    _safetensors(tmp_path / "b" / "model.safetensors", {"y": b"5678", "x": b"1234"})
    _safetensors(tmp_path / "c" / "model-1.safetensors", {"y": b"5678"})
    _safetensors(tmp_path / "c" / "model-2.safetensors", {"x": b"1234"})
    _safetensors(tmp_path / "d" / "model.safetensors", {"x": b"1234", "y": b"5679"})
    digests = [weights_digest(tmp_path / name) for name in "abcd"]
    assert digests[0] == digests[1] == digests[2]
    assert digests[3] != digests[0]


def test_a_cut_weights_file_is_data_loss_and_an_empty_folder_not_found(tmp_path: Path) -> None:
    _safetensors(tmp_path / "model.safetensors", {"x": b"12345678"})
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-3])
    with pytest.raises(DataLoss, match="ends before"):
        weights_digest(tmp_path)
    with pytest.raises(NotFound, match="model folder"):
        weights_digest(tmp_path / "none")


async def test_weights_come_over_grpc_verified_and_a_wrong_digest_is_never_kept(tmp_path: Path) -> None:
    published = tmp_path / "published" / "v1"
    _safetensors(published / "model.safetensors", {"x": bytes(3 * CHUNK_BYTES)})
    (published / "config.json").write_text("{}")
    digest, cache = weights_digest(published), tmp_path / "cache"
    async with serving(Artifacts(tmp_path / "published"), ServiceSettings()) as address:
        uri = f"grpc://{address}/v1"
        folder = await fetch(types_v1.WeightsRef(uri=uri, digest=digest), cache)
        assert (folder / "config.json").read_text() == "{}"
        assert weights_digest(folder) == digest
        with pytest.raises(FailedPrecondition) as wrong:
            await fetch(types_v1.WeightsRef(uri=uri, digest="0" * 64), cache)
        assert wrong.value.reason == "DIGEST_MISMATCH"
        assert not (cache / ("0" * 64)).exists()
        with pytest.raises(NotFound):
            await fetch(types_v1.WeightsRef(uri=f"grpc://{address}/v2", digest="1" * 64), cache)
    with pytest.raises(InvalidArgument, match="64 lower-case hex"):
        await fetch(types_v1.WeightsRef(uri="grpc://127.0.0.1:1/x", digest="../../x"), cache)
    with pytest.raises(InvalidArgument, match="unknown scheme"):
        await fetch(types_v1.WeightsRef(uri="ftp://x/y", digest="1" * 64), cache)


def test_a_lease_excludes_others_expires_and_is_taken_over_by_its_own_holder() -> None:
    now = [0.0]
    table = LeaseTable(max_ttl_seconds=60, clock=lambda: now[0])
    first = table.acquire("runs/a", 3600)
    with pytest.raises(FailedPrecondition) as held:
        table.acquire("runs/b", 10)
    assert held.value.metadata["holder"] == "runs/a"
    with pytest.raises(FailedPrecondition):
        table.check("")
    table.check(first.token)
    now[0] = 59
    assert table.acquire("runs/a", 60, first.token).token == first.token
    now[0] = 118
    table.check(first.token)
    taken_over = table.acquire("runs/a", 60)
    assert taken_over.token != first.token
    with pytest.raises(FailedPrecondition):
        table.check(first.token)
    now[0] = 200
    table.check("anything")
    assert table.current() is None
    assert table.acquire("runs/b", 10).holder == "runs/b"


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    with atomic.folder(target) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(FileNotFoundError), atomic.folder(target) as folder:
        (folder / "a").write_bytes((folder / "missing").read_bytes())
    assert (target / "a").read_text() == "1"
    with atomic.folder(target) as folder:
        (folder / "a").write_text("3")
    assert (target / "a").read_text() == "3"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ResourceExhausted, match="MiB are free") as full:
        atomic.require_space(tmp_path / "not" / "yet", 2**60)
    assert full.value.reason == "DISK_FULL"


def test_an_unknown_plugin_lists_what_there_is() -> None:
    with pytest.raises(InvalidArgument, match="transformers") as unknown:
        plugins.load("accord.engines", "no-such", "spec.rollout.engine")
    assert unknown.value.reason == "UNKNOWN_ENGINE"
    assert unknown.value.violations[0].field == "spec.rollout.engine"


def test_content_digest_tells_parts_apart() -> None:
    assert content_digest([b"ab", b"c"]) != content_digest([b"a", b"bc"])
