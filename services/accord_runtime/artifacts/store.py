"""Weights in transit: published folders, served and fetched by URI scheme, verified before anyone uses them.

The seam is `Transport`: one module of accord_runtime/artifacts/transports for each way, or an entry point of group
`accord.transports` named after its scheme.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from accord import plugins
from accord.artifact import v1 as artifact_v1
from accord.digest import file_digest, weights_digest
from accord.errors import AccordError, FailedPrecondition, InvalidArgument, NotFound
from accord.types import v1 as types_v1
from accord_runtime.artifacts.paths import inside
from accord_runtime.artifacts.transfer import Limits, Progress, within
from accord_runtime.artifacts.transports.file import local_path as local_path

CHUNK_BYTES = 2**20
GROUP = "accord.transports"
_DIGEST = re.compile("[0-9a-f]{64}")
_OURS: Mapping[str, str] = {
    "file": "file",
    "grpc": "grpc",
    "s3": "object_store",
    "gs": "object_store",
    "az": "object_store",
}
T = TypeVar("T")


class Transport(Protocol):
    """A way to fetch a folder."""

    async def __call__(self, uri: str, target: Path, progress: Progress) -> Path:
        """The folder at `uri`, in place where that can be, else copied to `target`, which is whole or not there.

        Every piece that arrives is told to `progress`. Raises AccordError.
        """
        ...


@dataclass(frozen=True)
class FailedSource:
    """A place that did not serve, and why."""

    uri: str
    error: AccordError


@dataclass(frozen=True)
class Fetched(Generic[T]):
    """What came from `uri`, and what was tried before."""

    result: T
    uri: str
    failed: tuple[FailedSource, ...]


def schemes() -> list[str]:
    """What a URI may begin with."""
    return [*_OURS, *(name for name in plugins.names(GROUP) if name not in _OURS)]


async def fetch(ref: types_v1.WeightsRef, cache: Path, limits: Limits | None = None) -> Path:
    """The folder that `ref` names, on this machine's disk, its digest verified: from its `uri`, else a fallback.

    `file://` and plain paths are used in place; others are copied to `cache`/<digest> once.
    Errors: FailedPrecondition DIGEST_MISMATCH, NotFound, InvalidArgument for an unknown scheme, DeadlineExceeded
    FETCH_TIMEOUT, Unavailable TRANSFER_STALLED.
    """
    check_digest(ref.digest, "weights.digest")

    async def attempt(uri: str, limits: Limits) -> Path:
        folder = await transfer(uri, cache / ref.digest, limits)
        await verify(folder, ref.digest, uri, ours=cache / ref.digest)
        return folder

    return (await first_of([ref.uri, *ref.fallback_uris], limits or Limits(), attempt)).result


async def first_of(uris: Sequence[str], limits: Limits, attempt: Callable[[str, Limits], Awaitable[T]]) -> Fetched[T]:
    """What the first source that serves gives; each has `limits` of its own. The error is that of the last."""
    failed: list[FailedSource] = []
    for uri in uris:
        try:
            return Fetched(await within(limits, uri, _as_coroutine(attempt, uri, limits)), uri, tuple(failed))
        except AccordError as error:
            failed.append(FailedSource(uri, error))
    last = failed[-1].error
    if len(failed) > 1:
        last.message += "; before it: " + "; ".join(f"{one.uri}: {one.error.reason}" for one in failed[:-1])
        last.args = (last.message,)
    raise last


async def transfer(uri: str, target: Path, limits: Limits) -> Path:
    """The folder at `uri`, unverified; what lies at `target` already is not fetched again."""
    scheme = urlsplit(uri).scheme or "file"
    if scheme not in schemes():
        raise InvalidArgument.at("weights.uri", f"unknown scheme in {uri}; there is: {', '.join(schemes())}")
    transport: Transport = (
        import_module(f"accord_runtime.artifacts.transports.{_OURS[scheme]}").fetch
        if scheme in _OURS
        else plugins.load(GROUP, scheme, field="weights.uri")
    )
    if scheme != "file" and target.is_dir():
        return target
    progress = Progress(uri, limits)
    return await progress.guard(transport(uri, target, progress))


async def verify(folder: Path, digest: str, uri: str, ours: Path) -> None:
    """FailedPrecondition/DIGEST_MISMATCH where `folder` holds other weights, DataLoss/WEIGHTS_DAMAGED where none can be
    read; removed if it is `ours`."""
    try:
        found = await asyncio.to_thread(weights_digest, folder)
        if found != digest:
            raise FailedPrecondition(
                f"the weights at {uri} are not the ones meant: digest {found[:12]}, expected {digest[:12]}; publish "
                "them again",
                reason="DIGEST_MISMATCH",
                metadata={"expected": digest, "found": found, "uri": uri},
            )
    except AccordError:
        if folder == ours:  # our copy, which would be found here again; what the publisher holds is not ours to delete
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        raise


def check_digest(digest: str, field: str) -> None:
    """InvalidArgument where it is no SHA-256; it also becomes a file name, so nothing else may pass."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidArgument.at(field, "must be a SHA-256: 64 lower-case hex digits")


async def _as_coroutine(attempt: Callable[[str, Limits], Awaitable[T]], uri: str, limits: Limits) -> T:
    return await attempt(uri, limits)


class ArtifactStore:
    """Published folders below `root`, one for each artifact id. Reads only what was published there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._digests: dict[tuple[Path, int, int], str] = {}

    def folder(self, artifact_id: str) -> Path:
        """The folder of an artifact. NotFound when it was never published or was freed."""
        path = inside(self.root, artifact_id)
        if not path.is_dir():
            raise NotFound(
                f"no artifact {artifact_id} here; it was never published or was freed", reason="ARTIFACT_NOT_FOUND"
            )
        return path

    def files(self, artifact_id: str, omit_tensor_sha256: bool = False) -> list[artifact_v1.ArtifactFile]:
        """Its files with size and SHA-256, on request without that of *.safetensors."""
        folder = self.folder(artifact_id)
        return [
            artifact_v1.ArtifactFile(
                path=str(path.relative_to(folder)),
                size_bytes=path.stat().st_size,
                sha256="" if omit_tensor_sha256 and path.suffix == ".safetensors" else self._digest(path),
            )
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]

    def _digest(self, path: Path) -> str:
        """Of a file, computed once for as long as it is not written to: many replicas fetch the same."""
        stat = path.stat()
        key = (path, stat.st_size, stat.st_mtime_ns)
        if key not in self._digests:
            self._digests[key] = file_digest(path)
        return self._digests[key]

    def read(self, artifact_id: str, path: str, offset: int) -> bytes:
        """At most CHUNK_BYTES of a file from `offset`; empty at its end."""
        file = inside(self.folder(artifact_id), path)
        if not file.is_file():
            raise NotFound(f"artifact {artifact_id} has no file {path}", reason="FILE_NOT_FOUND")
        with file.open("rb") as raw:
            raw.seek(offset)
            return raw.read(CHUNK_BYTES)
