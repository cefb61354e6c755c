"""Fetches weights by URI, in any format, and turns them into a complete, verified model folder."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from accord.digest import weights_digest
from accord.errors import FailedPrecondition, InvalidArgument
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_rollout.engine import Activate, Weights
from accord_runtime.artifacts import fetch
from accord_runtime.artifacts.transfer import Limits

log = logging.getLogger(__name__)

_KEPT = 2  # versions whose folders stay in the cache: the active one and the one before it


# Reads a complete model; the result activates it.
ReadModel = Callable[[Path], Coroutine[None, None, Activate]]


@dataclass(frozen=True)
class FetchedWeights:
    """A complete model on this machine's disk. `failed`: the sources that were tried before `uri`."""

    folder: Path
    digest: str
    uri: str
    failed: Sequence[rollout_v1.FailedSource] = ()
    # Reads the model, before its verification is complete. None: not started.
    reading: asyncio.Task[Activate] | None = None


class WeightFetcher:
    """Fetches into `cache`, and records the folders to which an adapter or a delta can be applied."""

    formats = ("merged", "adapter", "delta")

    def __init__(self, cache: Path, limits: Limits | None = None) -> None:
        self._cache = cache
        self._limits = limits or Limits()
        self._activated: dict[Weights, Path] = {}

    @property
    def schemes(self) -> list[str]:
        """The supported URI schemes."""
        return fetch.schemes()

    async def fetch(self, ref: types_v1.WeightsRef, early: ReadModel | None = None) -> FetchedWeights:
        """The model that `ref` names. Errors as artifacts.fetch; FailedPrecondition/BASE_MISSING. `early` reads a
        merged model as soon as it is on disk, and is cancelled if its verification fails."""
        fetch.check_digest(ref.digest, "weights.digest")
        if ref.format not in ("", *self.formats):
            raise InvalidArgument.at(
                "weights.format", f"unknown format {ref.format!r}; available: {', '.join(self.formats)}"
            )
        base = self._base(ref) if ref.format in ("adapter", "delta") else None
        shorter = ref.HasField("delta")
        if shorter and base is not None:
            raise InvalidArgument.at(
                "weights.delta", f"must be empty for the format {ref.format}: a delta gives a whole model"
            )

        async def attempt(uri: str, limits: Limits) -> FetchedWeights:
            if shorter and uri == ref.delta.uri:
                return FetchedWeights(*await self._delta(ref, uri, limits, self._base(as_delta(ref))), uri)
            if base is None:
                return await self._merged(ref, uri, limits, early)
            make = self._delta if ref.format == "delta" else self._adapter
            return FetchedWeights(*await make(ref, uri, limits, base), uri)

        uris = [*([ref.delta.uri] if shorter else []), ref.uri, *ref.fallback_uris]
        fetched = await fetch.first_of(uris, self._limits, attempt)
        for one in fetched.failed:
            log.warning("version %d: fetching from %s failed: %s", ref.version, one.uri, one.error.message)
        return replace(fetched.result, failed=[_failed_message(one) for one in fetched.failed])

    def keep(self, weights: Weights, folder: Path) -> None:
        """Records the folder of activated weights. Deletes our copies of older ones, except the first, the base of
        adapters."""
        first = next(iter(self._activated), weights)
        if weights != first:
            self._activated.pop(weights, None)
        self._activated[weights] = folder
        for old in list(self._activated)[1:-_KEPT]:
            path = self._activated.pop(old)
            if path.parent == self._cache and path not in self._activated.values():
                shutil.rmtree(path, ignore_errors=True)

    async def _merged(
        self, ref: types_v1.WeightsRef, uri: str, limits: Limits, early: ReadModel | None
    ) -> FetchedWeights:
        folder = await fetch.transfer(uri, self._cache / ref.digest, limits)
        reading = asyncio.ensure_future(early(folder)) if early is not None else None
        try:
            await fetch.verify(folder, ref.digest, uri, ours=self._cache / ref.digest)
        except BaseException:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            raise
        return FetchedWeights(folder, ref.digest, uri, reading=reading)

    async def _delta(
        self, ref: types_v1.WeightsRef, uri: str, limits: Limits, base: tuple[Weights, Path]
    ) -> tuple[Path, str]:
        """The base with the delta applied; `ref.digest` is the digest of the result."""
        from accord_models.delta import apply_delta

        target = self._cache / ref.digest
        if not target.is_dir():
            await self._apply(apply_delta, base, uri, self._cache / f"{ref.digest}.delta", target, limits)
        await fetch.verify(target, ref.digest, uri, ours=target)
        return target, ref.digest

    async def _adapter(
        self, ref: types_v1.WeightsRef, uri: str, limits: Limits, base: tuple[Weights, Path]
    ) -> tuple[Path, str]:
        """The base with the adapter merged in; `ref.digest` is the digest of the adapter."""
        from accord_models.adapter import merge_adapter

        copy = self._cache / f"{ref.digest}.adapter"
        adapter = await fetch.transfer(uri, copy, limits)
        await fetch.verify(adapter, ref.digest, uri, ours=copy)
        target = self._cache / f"{base[0].digest}+{ref.digest}"
        if not target.is_dir():
            await self._apply(merge_adapter, base, uri, copy, target, limits)
        digest = await asyncio.to_thread(weights_digest, target)
        if ref.merged_digest and digest != ref.merged_digest:
            shutil.rmtree(target, ignore_errors=True)
            raise FailedPrecondition(
                f"the adapter at {uri} merges into {digest[:12]} here, but its publisher expects "
                f"{ref.merged_digest[:12]}; publish it merged",
                reason="DIGEST_MISMATCH",
                metadata={"expected": ref.merged_digest, "found": digest, "uri": uri},
            )
        return target, digest

    async def _apply(
        self,
        apply: Callable[[Path, Path, Path], None],
        base: tuple[Weights, Path],
        uri: str,
        copy: Path,
        target: Path,
        limits: Limits,
    ) -> None:
        """Fetches the change, applies it, and deletes our copy of it."""
        try:
            change = await fetch.transfer(uri, copy, limits)
            await asyncio.to_thread(apply, base[1], change, target)
        finally:
            await asyncio.to_thread(shutil.rmtree, copy, ignore_errors=True)

    def _base(self, ref: types_v1.WeightsRef) -> tuple[Weights, Path]:
        if not ref.base_digest and not ref.HasField("base_version"):
            raise InvalidArgument.at("weights.base_version", f"must name the model that the {ref.format} is for")
        for weights, folder in reversed(self._activated.items()):
            same = weights.digest == ref.base_digest if ref.base_digest else weights.version == ref.base_version
            if same and folder.is_dir():
                return weights, folder
        known = ", ".join(str(weights.version) for weights in self._activated) or "none"
        raise FailedPrecondition(
            f"the {ref.format} is for version {ref.base_version} (digest {ref.base_digest[:12] or 'not given'}), which "
            f"this service does not have (it has: {known}). Update to that version first, or publish merged",
            reason="BASE_MISSING",
            metadata={"base_version": str(ref.base_version), "base_digest": ref.base_digest, "kept": known},
        )


def as_delta(ref: types_v1.WeightsRef) -> types_v1.WeightsRef:
    """The same weights, referenced only by their delta."""
    return types_v1.WeightsRef(
        uri=ref.delta.uri,
        version=ref.version,
        digest=ref.digest,
        format="delta",
        base_version=ref.delta.base_version,
        base_digest=ref.delta.base_digest,
    )


def _failed_message(failed: fetch.FailedSource) -> rollout_v1.FailedSource:
    failure = types_v1.Failure(reason=failed.error.reason, message=failed.error.message)
    return rollout_v1.FailedSource(uri=failed.uri, failure=failure)
