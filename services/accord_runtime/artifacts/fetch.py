"""Fetches weights by the scheme of their URI and verifies them before use.

The seam is `Transport`: a module of accord_runtime/artifacts/transports, or an entry point of group `accord.transports`
named after its scheme.
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
from accord.digest import weights_digest
from accord.errors import AccordError, FailedPrecondition, InvalidArgument
from accord.types import v1 as types_v1
from accord_runtime.artifacts.transfer import Limits, Progress, within

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
        """The folder at `uri`, in place if possible, else copied to `target`. `target` is complete or does not exist.

        Reports each received piece to `progress`. Raises AccordError.
        """
        ...


@dataclass(frozen=True)
class FailedSource:
    """A source that failed, and the error."""

    uri: str
    error: AccordError


@dataclass(frozen=True)
class Fetched(Generic[T]):
    """The result, its source `uri`, and the sources that failed before."""

    result: T
    uri: str
    failed: tuple[FailedSource, ...]


def schemes() -> list[str]:
    """The schemes that a URI may have."""
    return [*_OURS, *(name for name in plugins.names(GROUP) if name not in _OURS)]


async def fetch(ref: types_v1.WeightsRef, cache: Path, limits: Limits | None = None) -> Path:
    """The folder of `ref` on this machine's disk, with its digest verified, from its `uri` or else from a fallback.

    `file://` and plain paths are used in place; others are copied to `cache`/<digest> once.
    Errors: FailedPrecondition, DIGEST_MISMATCH; NotFound; InvalidArgument for an unknown scheme; DeadlineExceeded,
    FETCH_TIMEOUT; Unavailable, TRANSFER_STALLED.
    """
    check_digest(ref.digest, "weights.digest")

    async def attempt(uri: str, limits: Limits) -> Path:
        folder = await transfer(uri, cache / ref.digest, limits)
        await verify(folder, ref.digest, uri, ours=cache / ref.digest)
        return folder

    return (await first_of([ref.uri, *ref.fallback_uris], limits or Limits(), attempt)).result


async def first_of(uris: Sequence[str], limits: Limits, attempt: Callable[[str, Limits], Awaitable[T]]) -> Fetched[T]:
    """The result of the first source that succeeds; `limits` apply to each source. If all fail, raises the last
    error."""
    failed: list[FailedSource] = []
    for uri in uris:
        try:
            return Fetched(await within(limits, uri, _as_coroutine(attempt, uri, limits)), uri, tuple(failed))
        except AccordError as error:
            failed.append(FailedSource(uri, error))
    last = failed[-1].error
    if len(failed) > 1:
        last.message += "; other sources failed before: " + "; ".join(
            f"{one.uri}: {one.error.reason}" for one in failed[:-1]
        )
        last.args = (last.message,)
    raise last


async def transfer(uri: str, target: Path, limits: Limits) -> Path:
    """The folder at `uri`, unverified. If `target` exists, nothing is fetched."""
    scheme = urlsplit(uri).scheme or "file"
    if scheme not in schemes():
        raise InvalidArgument.at("weights.uri", f"unknown scheme in {uri}; available: {', '.join(schemes())}")
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
    """FailedPrecondition, DIGEST_MISMATCH, if `folder` has different weights; DataLoss, WEIGHTS_DAMAGED, if they cannot
    be read. An invalid folder is removed if it is `ours`."""
    try:
        found = await asyncio.to_thread(weights_digest, folder)
        if found != digest:
            raise FailedPrecondition(
                f"the weights at {uri} have digest {found[:12]}, expected {digest[:12]}. Publish them again",
                reason="DIGEST_MISMATCH",
                metadata={"expected": digest, "found": found, "uri": uri},
            )
    except AccordError:
        if folder == ours:  # our copy, which the next call would find; the publisher's folder is never deleted
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        raise


def check_digest(digest: str, field: str) -> None:
    """InvalidArgument unless the digest is a SHA-256. It also becomes a file name, so nothing else is accepted."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidArgument.at(field, "must be a SHA-256: 64 lower-case hex digits")


async def _as_coroutine(attempt: Callable[[str, Limits], Awaitable[T]], uri: str, limits: Limits) -> T:
    return await attempt(uri, limits)
