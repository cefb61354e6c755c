"""Copies published weights into a user's folder, completely and verified, or not at all."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from accord.artifact import v1 as artifact_v1
from accord.channel import open_channel
from accord.digest import file_digest, weights_digest
from accord.errors import AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from accord.types import v1 as types_v1

READ_SECONDS = 1800.0


def refuse_existing(destination: Path) -> None:
    """AlreadyExists unless `destination` does not exist or is an empty folder: nothing is ever overwritten."""
    if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        raise AlreadyExists(
            f"{destination} already exists. Choose another folder, or remove it", reason="DESTINATION_EXISTS"
        )


async def export_model(weights: types_v1.WeightsRef, destination: Path) -> None:
    """Copies `weights` to `destination`. FailedPrecondition, DIGEST_MISMATCH, if their digest differs."""
    refuse_existing(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    # Next to the destination, so that the last step is a rename within one file system.
    temporary = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    try:
        folder = temporary / "model"
        await _copy(weights.uri, folder)
        found = await asyncio.to_thread(weights_digest, folder)
        if found != weights.digest:
            raise FailedPrecondition(
                f"The weights at {weights.uri} have digest {found[:12]}, expected {weights.digest[:12]}; "
                "nothing was exported",
                reason="DIGEST_MISMATCH",
                metadata={"expected": weights.digest, "found": found},
            )
        if destination.exists():
            destination.rmdir()
        folder.rename(destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


async def _copy(uri: str, folder: Path) -> None:
    parts = urlsplit(uri)
    if parts.scheme == "grpc":
        await _download(parts.netloc, parts.path.strip("/"), folder)
    elif parts.scheme in ("", "file"):
        source = Path(unquote(parts.path)) if parts.scheme else Path(uri)
        if not source.is_dir():
            raise NotFound(f"{source} no longer exists; was it deleted?", reason="WEIGHTS_NOT_FOUND")
        _need_room(folder.parent, sum(file.stat().st_size for file in source.rglob("*") if file.is_file()))
        await asyncio.to_thread(shutil.copytree, source, folder)
    else:
        raise InvalidArgument.at("weights.uri", f"cannot export from {uri}; supported schemes: file, grpc")


async def _download(address: str, artifact_id: str, folder: Path) -> None:
    async with open_channel(address) as channel:
        stub = artifact_v1.ArtifactServiceStub(channel)
        listing = await stub.GetArtifact(artifact_v1.GetArtifactRequest(artifact_id=artifact_id), timeout=30)
        _need_room(folder.parent, sum(file.size_bytes for file in listing.files))
        for file in listing.files:
            path = (folder / file.path).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise DataLoss(f"{address} names a file outside the model: {file.path}", reason="ARTIFACT_DAMAGED")
            path.parent.mkdir(parents=True, exist_ok=True)
            request = artifact_v1.ReadFileRequest(artifact_id=artifact_id, path=file.path)
            with path.open("wb") as out:
                async for message in stub.ReadFile(request, timeout=READ_SECONDS):
                    out.write(message.data)
            if await asyncio.to_thread(file_digest, path) != file.sha256:
                raise DataLoss(f"{file.path} was damaged in transfer; export again", reason="ARTIFACT_DAMAGED")


def _need_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ResourceExhausted(
            f"The model needs {needed // 2**20} MiB, but {folder} has {free // 2**20} MiB free. "
            "Free some space, or export to another disk",
            reason="DISK_FULL",
        )
