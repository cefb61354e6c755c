"""Exported models are whole and verified, or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from accord.artifact import v1 as artifact_v1
from accord.cli.local.model_export import export_model
from accord.digest import weights_digest
from accord.errors import AlreadyExists, FailedPrecondition, NotFound
from accord.types import v1 as types_v1


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_a_copy_is_equal_and_loads(tiny_folder: Path, tmp_path: Path) -> None:
    weights = types_v1.WeightsRef(uri=tiny_folder.as_uri(), digest=weights_digest(tiny_folder))
    (tmp_path / "out").mkdir()  # an empty folder is as good as none
    await export_model(weights, tmp_path / "out")
    assert files(tmp_path / "out") == files(tiny_folder)
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.model_type == "llama"


async def test_weights_that_are_not_the_ones_meant_leave_nothing_behind(tiny_folder: Path, tmp_path: Path) -> None:
    weights = types_v1.WeightsRef(uri=tiny_folder.as_uri(), digest="0" * 64)
    with pytest.raises(FailedPrecondition) as caught:
        await export_model(weights, tmp_path / "deep" / "out")
    assert caught.value.reason == "DIGEST_MISMATCH"
    assert not list((tmp_path / "deep").iterdir())


async def test_nothing_is_overwritten_and_freed_weights_are_named(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    weights = types_v1.WeightsRef(uri=tiny_folder.as_uri(), digest=weights_digest(tiny_folder))
    for taken in (tmp_path, tmp_path / "mine"):
        with pytest.raises(AlreadyExists):
            await export_model(weights, taken)
    assert (tmp_path / "mine").read_text() == "precious"
    with pytest.raises(NotFound, match="deleted"):
        await export_model(types_v1.WeightsRef(uri="file:///nowhere/at/all", digest="0"), tmp_path / "out")


async def test_weights_are_downloaded_from_whoever_published_them(tiny_folder: Path, tmp_path: Path) -> None:
    import grpc.aio

    from accord_runtime.artifacts.servicer import ArtifactServicer
    from accord_runtime.artifacts.store import ArtifactStore

    server = grpc.aio.server()
    artifact_v1.add_ArtifactServiceServicer_to_server(ArtifactServicer(ArtifactStore(tiny_folder.parent)), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        uri = f"grpc://127.0.0.1:{port}/{tiny_folder.name}"
        weights = types_v1.WeightsRef(uri=uri, digest=weights_digest(tiny_folder))
        await export_model(weights, tmp_path / "out")
    finally:
        await server.stop(None)
    assert files(tmp_path / "out") == files(tiny_folder)
