"""Weights in transit: published folders, served and fetched by URI scheme, verified before anyone uses them."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from accord.artifact import v1 as artifact_v1
from accord.channel import open_channel
from accord.errors import FailedPrecondition, InvalidArgument, NotFound
from accord.types import v1 as types_v1
from accord_runtime import atomic
from accord_runtime.digest import file_digest, weights_digest

FETCH_SECONDS = 600.0
CHUNK_BYTES = 4 * 2**20
_DIGEST = re.compile("[0-9a-f]{64}")


async def fetch(ref: types_v1.WeightsRef, cache: Path, timeout: float = FETCH_SECONDS) -> Path:
    """The folder that `ref` names, on this machine's disk, its digest verified.

    `file://` and plain paths are used in place; `grpc://host:port/id` is copied to `cache`/<digest> once.
    Errors: FailedPrecondition DIGEST_MISMATCH, NotFound, InvalidArgument for an unknown scheme, DeadlineExceeded.
    """
    if not _DIGEST.fullmatch(ref.digest):  # also a file name below, so nothing else may pass
        raise InvalidArgument.at("weights.digest", "must be a SHA-256: 64 lower-case hex digits")
    scheme = urlsplit(ref.uri).scheme or "file"
    transport = TRANSPORTS.get(scheme)
    if transport is None:
        raise InvalidArgument.at("weights.uri", f"unknown scheme in {ref.uri}; there is: {', '.join(TRANSPORTS)}")
    async with asyncio.timeout(timeout):
        folder = await transport(ref, cache)
        found = await asyncio.to_thread(weights_digest, folder)
    if found != ref.digest:
        if scheme != "file":  # our copy; what the publisher holds is not ours to delete
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        raise FailedPrecondition(
            f"the weights at {ref.uri} are not the ones meant: digest {found[:12]}, expected {ref.digest[:12]}; "
            "publish them again",
            reason="DIGEST_MISMATCH",
            metadata={"expected": ref.digest, "found": found, "uri": ref.uri},
        )
    return folder


def local_path(uri: str) -> Path:
    """The path of a `file://` URI or a plain path."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path) if parts.scheme == "file" else uri)


async def _from_file(ref: types_v1.WeightsRef, cache: Path) -> Path:
    folder = local_path(ref.uri)
    if not folder.is_dir():
        raise NotFound(f"{folder} does not exist or is no folder; was it freed?", reason="WEIGHTS_NOT_FOUND")
    return folder


async def _from_grpc(ref: types_v1.WeightsRef, cache: Path) -> Path:
    """Copies each file, verifying its SHA-256, then moves the complete folder into place."""
    target = cache / ref.digest
    if target.is_dir():
        return target
    parts = urlsplit(ref.uri)
    async with open_channel(parts.netloc) as channel:
        stub = artifact_v1.ArtifactServiceStub(channel)
        listing = await stub.GetArtifact(artifact_v1.GetArtifactRequest(artifact_id=parts.path.strip("/")), timeout=30)
        atomic.require_space(cache, sum(file.size_bytes for file in listing.files))
        with atomic.folder(target) as temporary:
            for file in listing.files:
                path = _inside(temporary, file.path)
                path.parent.mkdir(parents=True, exist_ok=True)
                request = artifact_v1.ReadFileRequest(artifact_id=parts.path.strip("/"), path=file.path)
                with path.open("wb") as out:
                    async for message in stub.ReadFile(request, timeout=FETCH_SECONDS):
                        out.write(message.data)
                if await asyncio.to_thread(file_digest, path) != file.sha256:
                    raise FailedPrecondition(
                        f"{file.path} of {ref.uri} was damaged on the way; fetch it again", reason="DIGEST_MISMATCH"
                    )
    return target


TRANSPORTS: Mapping[str, Callable[[types_v1.WeightsRef, Path], Awaitable[Path]]] = {
    "file": _from_file,
    "grpc": _from_grpc,
}


class ArtifactStore:
    """Published folders below `root`, one for each artifact id. Reads only what was published there."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, artifact_id: str) -> Path:
        """The folder of an artifact. NotFound when it was never published or was freed."""
        path = _inside(self.root, artifact_id)
        if not path.is_dir():
            raise NotFound(
                f"no artifact {artifact_id} here; it was never published or was freed", reason="ARTIFACT_NOT_FOUND"
            )
        return path

    def files(self, artifact_id: str) -> list[artifact_v1.ArtifactFile]:
        """Its files with size and SHA-256."""
        folder = self.folder(artifact_id)
        return [
            artifact_v1.ArtifactFile(
                path=str(path.relative_to(folder)), size_bytes=path.stat().st_size, sha256=file_digest(path)
            )
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]

    def read(self, artifact_id: str, path: str, offset: int) -> bytes:
        """At most CHUNK_BYTES of a file from `offset`; empty at its end."""
        file = _inside(self.folder(artifact_id), path)
        if not file.is_file():
            raise NotFound(f"artifact {artifact_id} has no file {path}", reason="FILE_NOT_FOUND")
        with file.open("rb") as raw:
            raw.seek(offset)
            return raw.read(CHUNK_BYTES)


def _inside(root: Path, relative: str) -> Path:
    """`root`/`relative`, refusing any path that leads out of `root`."""
    path = (root / relative).resolve()
    if not relative or not path.is_relative_to(root.resolve()):
        raise InvalidArgument.at("path", f"{relative!r} leads out of the artifact")
    return path
