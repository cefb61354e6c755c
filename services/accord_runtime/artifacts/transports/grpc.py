"""`grpc://host:port/artifact-id`: streamed from the publisher's ArtifactService."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from accord import atomic
from accord.artifact import v1 as artifact_v1
from accord.channel import open_channel
from accord.digest import file_digest
from accord.errors import FailedPrecondition, Unavailable
from accord_runtime.artifacts.paths import inside
from accord_runtime.artifacts.transfer import Progress

_TRIES = 4  # attempts at a stream that breaks before any byte arrives


async def fetch(uri: str, target: Path, progress: Progress) -> Path:
    """Copies each file, then moves the complete folder into place. A broken stream continues where it stopped.

    The weights' digest verifies the tensors, and a SHA-256 verifies each other file: FailedPrecondition,
    DIGEST_MISMATCH.
    """
    parts = urlsplit(uri)
    artifact_id = parts.path.strip("/")
    async with open_channel(parts.netloc) as channel:
        stub = artifact_v1.ArtifactServiceStub(channel)
        request = artifact_v1.GetArtifactRequest(artifact_id=artifact_id, omit_tensor_sha256=True)
        listing = await stub.GetArtifact(request, timeout=progress.limits.total_seconds)
        atomic.require_space(target.parent, sum(file.size_bytes for file in listing.files))
        with atomic.folder(target, durable=False) as part:
            for file in listing.files:
                path = inside(part, file.path)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as out:
                    await _copy(stub, artifact_id, file.path, out, progress)
                if path.suffix != ".safetensors" and await asyncio.to_thread(file_digest, path) != file.sha256:
                    raise FailedPrecondition(
                        f"{file.path} of {uri} was damaged in transit. Fetch it again", reason="DIGEST_MISMATCH"
                    )
    return target


async def _copy(
    stub: artifact_v1.ArtifactServiceStub, artifact_id: str, path: str, out: BinaryIO, progress: Progress
) -> None:
    broken = 0
    while True:
        start = out.tell()
        request = artifact_v1.ReadFileRequest(artifact_id=artifact_id, path=path, offset=start)
        try:
            async for message in stub.ReadFile(request, timeout=progress.limits.total_seconds):
                out.write(message.data)
                progress.arrived(len(message.data))
            return
        except Unavailable:
            broken = 1 if out.tell() > start else broken + 1
            if broken == _TRIES:
                raise
            await asyncio.sleep(0.1 * 2**broken)
