"""Prepares weights while others serve, activates them in a pause, and serves only verified weights."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from accord.errors import AlreadyExists, DataLoss, FailedPrecondition, ResourceExhausted
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_rollout.engine import Activate, Engine, ModelInfo, ResidentWeights, Weights
from accord_rollout.weights.fetching import ReadModel, WeightFetcher
from accord_rollout.weights.shared_lock import SharedLock

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActiveWeights:
    """The weights that serve now, and the engine's description of their model."""

    weights: Weights
    model: ModelInfo


@dataclass(frozen=True)
class _Prepared:
    """Weights that the engine has read and can activate at once."""

    ref: types_v1.WeightsRef
    folder: Path
    activate: Activate
    message: rollout_v1.PreparedWeights


class WeightManager:
    """The weights of one engine. `active` is None before the first activation, and after one that failed."""

    def __init__(self, engine: Engine, lock: SharedLock, fetcher: WeightFetcher, *, max_prepared: int) -> None:
        self.active: ActiveWeights | None = None
        self.resident = ResidentWeights()
        self._engine = engine
        self._lock = lock
        self._fetcher = fetcher
        self._max_prepared = max_prepared
        self._prepared: dict[int, _Prepared] = {}
        self._check: asyncio.Future[ResidentWeights] | None = None
        self._preparing = asyncio.Lock()
        self._activating = asyncio.Lock()

    @property
    def prepared(self) -> list[rollout_v1.PreparedWeights]:
        """The versions that can be activated, oldest first."""
        return [ready.message for ready in self._prepared.values()]

    async def prepare(self, ref: types_v1.WeightsRef) -> rollout_v1.PreparedWeights:
        """Fetches, verifies and reads; an error changes nothing."""
        async with self._preparing:
            known = self._prepared.get(ref.version)
            if known is None:
                if len(self._prepared) >= self._max_prepared:
                    raise ResourceExhausted(
                        f"versions {', '.join(map(str, self._prepared))} are prepared; the limit is "
                        f"{self._max_prepared}. Activate or discard one",
                        reason="TOO_MANY_PREPARED",
                    )
                known = self._prepared[ref.version] = await self._prepare(ref)
            elif known.ref.digest != ref.digest:
                raise AlreadyExists(
                    f"version {ref.version} is prepared with digest {known.ref.digest[:12]}; discard it first",
                    reason="VERSION_PREPARED",
                    metadata={"version": str(ref.version), "prepared": known.ref.digest, "wanted": ref.digest},
                )
            return known.message

    async def activate(self, version: int) -> rollout_v1.ActivateWeightsResponse:
        """Activates a prepared version. FailedPrecondition/NOT_PREPARED."""
        ready = self._prepared.get(version)
        if ready is None:
            raise FailedPrecondition(
                f"version {version} is not prepared; call PrepareWeights first",
                reason="NOT_PREPARED",
                metadata={"wanted": str(version), "prepared": ", ".join(map(str, self._prepared))},
            )
        seconds = await self._activate(ready)
        resident = resident_weights_message(self.resident)
        return rollout_v1.ActivateWeightsResponse(
            version=version,
            digest=ready.message.digest,
            activate_seconds=seconds,
            held=resident,
            resident_weights=resident,
        )

    async def update(self, ref: types_v1.WeightsRef) -> rollout_v1.UpdateWeightsResponse:
        """Prepares and activates in one call, independent of prepared versions."""
        async with self._preparing:
            ready = await self._prepare(ref)
        seconds = await self._activate(ready)
        resident = resident_weights_message(self.resident)
        return rollout_v1.UpdateWeightsResponse(
            version=ref.version,
            digest=ready.message.digest,
            prepare_seconds=ready.message.prepare_seconds,
            activate_seconds=seconds,
            uri=ready.message.uri,
            failed_sources=ready.message.failed_sources,
            held=resident,
            resident_weights=resident,
        )

    async def install(self, folder: Path, version: int, digest: str) -> None:
        """Activates a folder on this machine that needs no fetching and whose digest is known."""
        ref = types_v1.WeightsRef(uri=folder.as_posix(), version=version, digest=digest)
        message = rollout_v1.PreparedWeights(version=version, digest=digest, uri=ref.uri)
        await self._activate(
            _Prepared(ref, folder, await self._engine.prepare(folder, Weights(version, digest)), message)
        )

    def discard(self, version: int) -> None:
        """Discards a version if it is prepared."""
        self._prepared.pop(version, None)

    def for_request(self, request: rollout_v1.GenerateRequest) -> ActiveWeights:
        """The active weights, if they match the request."""
        active = self.active
        if active is None:
            raise FailedPrecondition("no weights yet; call UpdateWeights first", reason="NO_WEIGHTS")
        version = active.weights.version
        exact = request.HasField("version") and request.version != version
        if exact or (request.HasField("min_version") and request.min_version > version):
            wanted = f"{request.version}" if exact else f"{request.min_version} or later"
            raise FailedPrecondition(
                f"version {wanted} is not active, {version} is; call UpdateWeights first",
                reason="VERSION_MISMATCH",
                metadata={"wanted": wanted, "in_force": str(version)},
            )
        fingerprint = active.model.tokenizer_fingerprint
        if request.tokenizer_fingerprint and request.tokenizer_fingerprint != fingerprint:
            raise FailedPrecondition(
                "the caller's tokenizer is not the model's; use the tokenizer of the active weights",
                reason="TOKENIZER_MISMATCH",
                metadata={"wanted": request.tokenizer_fingerprint, "in_force": fingerprint},
            )
        return active

    async def until_checked(self) -> None:
        """Waits until the resident weights have been checked. DataLoss/HELD_WEIGHTS_DIFFER."""
        if self._check is not None:
            await asyncio.shield(self._check)

    async def _prepare(self, ref: types_v1.WeightsRef) -> _Prepared:
        start = time.perf_counter()
        # Hashing and reading take about the same time, so an engine that supports it reads during the verification.
        early = self._read_early(ref) if getattr(self._engine, "can_prepare_unverified", False) else None
        found = await self._fetcher.fetch(ref, early)
        activate = await (found.reading or self._engine.prepare(found.folder, Weights(ref.version, found.digest)))
        now = Timestamp()
        now.GetCurrentTime()
        message = rollout_v1.PreparedWeights(
            version=ref.version,
            digest=found.digest,
            uri=found.uri,
            failed_sources=found.failed,
            prepare_seconds=time.perf_counter() - start,
            prepare_time=now,
        )
        return _Prepared(ref, found.folder, activate, message)

    def _read_early(self, ref: types_v1.WeightsRef) -> ReadModel:
        return lambda folder: self._engine.prepare(folder, Weights(ref.version, ref.digest))

    async def _activate(self, ready: _Prepared) -> float:
        """Returns the seconds in which no token was generated. The engine continues as soon as it has switched; no
        sample leaves until the resident weights have been checked."""
        weights = Weights(ready.ref.version, ready.message.digest)
        async with self._activating:
            # Also if the engine updates in flight: requests that name a version hold the lock and finish first.
            async with self._lock.exclusive():
                start = time.perf_counter()
                self._prepared.pop(weights.version, None)
                try:
                    self.active = ActiveWeights(weights, await ready.activate())
                except BaseException:
                    self.active = None
                    log.error("version %d could not be activated; no weights are active now", weights.version)
                    raise
                self._check = asyncio.ensure_future(self._check_resident(weights))
                seconds = time.perf_counter() - start
            self._fetcher.keep(weights, ready.folder)
            self.resident = await asyncio.shield(self._check)
            return seconds

    async def _check_resident(self, weights: Weights) -> ResidentWeights:
        resident = await self._engine.resident_weights()
        if resident.digest in ("", weights.digest):
            return resident
        self.active = None
        raise DataLoss(
            f"the weights in the engine are not those of version {weights.version}: digest {resident.digest[:12]}, "
            f"expected {weights.digest[:12]}; nothing is served until another update succeeds",
            reason="HELD_WEIGHTS_DIFFER",
            metadata={"expected": weights.digest, "found": resident.digest},
        )


def resident_weights_message(resident: ResidentWeights) -> rollout_v1.HeldWeights:
    """The message for the weights in the engine's memory."""
    return rollout_v1.HeldWeights(
        digest=resident.digest, checksum=resident.checksum, probe_logprobs=resident.probe_logprobs
    )
