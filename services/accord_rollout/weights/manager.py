"""Which weights serve and which are ready to: prepared while others serve, activated in a pause, never unverified."""

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
from accord_rollout.engine import Activate, Engine, ResidentWeights, Weights
from accord_rollout.requests.converters import InForce, held_message
from accord_rollout.weights.fetching import Read, Sources
from accord_rollout.weights.shared_lock import SharedLock

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Ready:
    """Weights that the engine has read and only needs to be told to use."""

    ref: types_v1.WeightsRef
    folder: Path
    activate: Activate
    message: rollout_v1.PreparedWeights


class WeightManager:
    """The weights of one engine. `in_force` is None before the first activation, and after one that failed."""

    def __init__(self, engine: Engine, gate: SharedLock, sources: Sources, *, max_prepared: int) -> None:
        self.in_force: InForce | None = None
        self.held = ResidentWeights()
        self._engine = engine
        self._gate = gate
        self._sources = sources
        self._max_prepared = max_prepared
        self._ready: dict[int, _Ready] = {}
        self._look: asyncio.Future[ResidentWeights] | None = None
        self._preparing = asyncio.Lock()
        self._activating = asyncio.Lock()

    @property
    def prepared(self) -> list[rollout_v1.PreparedWeights]:
        """What can be activated, oldest first."""
        return [ready.message for ready in self._ready.values()]

    async def prepare(self, ref: types_v1.WeightsRef) -> rollout_v1.PreparedWeights:
        """Fetches, verifies and reads; on any error nothing has changed."""
        async with self._preparing:
            known = self._ready.get(ref.version)
            if known is None:
                if len(self._ready) >= self._max_prepared:
                    raise ResourceExhausted(
                        f"versions {', '.join(map(str, self._ready))} are prepared, and no more than "
                        f"{self._max_prepared} are kept; activate or discard one",
                        reason="TOO_MANY_PREPARED",
                    )
                known = self._ready[ref.version] = await self._make_ready(ref)
            elif known.ref.digest != ref.digest:
                raise AlreadyExists(
                    f"version {ref.version} is prepared with digest {known.ref.digest[:12]}; discard it first",
                    reason="VERSION_PREPARED",
                    metadata={"version": str(ref.version), "prepared": known.ref.digest, "wanted": ref.digest},
                )
            return known.message

    async def activate(self, version: int) -> rollout_v1.ActivateWeightsResponse:
        """Puts a prepared version in force. FailedPrecondition/NOT_PREPARED."""
        ready = self._ready.get(version)
        if ready is None:
            raise FailedPrecondition(
                f"version {version} is not prepared; call PrepareWeights first",
                reason="NOT_PREPARED",
                metadata={"wanted": str(version), "prepared": ", ".join(map(str, self._ready))},
            )
        seconds = await self._put_in_force(ready)
        return rollout_v1.ActivateWeightsResponse(
            version=version,
            digest=ready.message.digest,
            activate_seconds=seconds,
            held=held_message(self.held),
        )

    async def update(self, ref: types_v1.WeightsRef) -> rollout_v1.UpdateWeightsResponse:
        """Both at once, past what is prepared."""
        async with self._preparing:
            ready = await self._make_ready(ref)
        seconds = await self._put_in_force(ready)
        return rollout_v1.UpdateWeightsResponse(
            version=ref.version,
            digest=ready.message.digest,
            prepare_seconds=ready.message.prepare_seconds,
            activate_seconds=seconds,
            uri=ready.message.uri,
            failed_sources=ready.message.failed_sources,
            held=held_message(self.held),
        )

    async def install(self, folder: Path, version: int, digest: str) -> None:
        """A folder of this machine that needs no fetching, its digest known."""
        ref = types_v1.WeightsRef(uri=folder.as_posix(), version=version, digest=digest)
        message = rollout_v1.PreparedWeights(version=version, digest=digest, uri=ref.uri)
        await self._put_in_force(
            _Ready(ref, folder, await self._engine.prepare(folder, Weights(version, digest)), message)
        )

    def discard(self, version: int) -> None:
        """Forgets a prepared version, if it is there."""
        self._ready.pop(version, None)

    def for_request(self, request: rollout_v1.GenerateRequest) -> InForce:
        """The weights in force, when they are those that the request wants."""
        in_force = self.in_force
        if in_force is None:
            raise FailedPrecondition("no weights yet: call UpdateWeights first", reason="NO_WEIGHTS")
        version = in_force.weights.version
        exact = request.HasField("version") and request.version != version
        if exact or (request.HasField("min_version") and request.min_version > version):
            wanted = f"{request.version}" if exact else f"{request.min_version} or later"
            raise FailedPrecondition(
                f"version {wanted} is not in force, {version} is; call UpdateWeights first",
                reason="VERSION_MISMATCH",
                metadata={"wanted": wanted, "in_force": str(version)},
            )
        fingerprint = in_force.model.tokenizer_fingerprint
        if request.tokenizer_fingerprint and request.tokenizer_fingerprint != fingerprint:
            raise FailedPrecondition(
                "the caller's tokenizer is not the model's; use the tokenizer of the weights in force",
                reason="TOKENIZER_MISMATCH",
                metadata={"wanted": request.tokenizer_fingerprint, "in_force": fingerprint},
            )
        return in_force

    async def looked(self) -> None:
        """Until what the engine holds has been looked at. DataLoss/HELD_WEIGHTS_DIFFER."""
        if self._look is not None:
            await asyncio.shield(self._look)

    async def _make_ready(self, ref: types_v1.WeightsRef) -> _Ready:
        start = time.perf_counter()
        # Hashing and reading take about as long: where the engine can, it reads what is still being verified.
        early = self._read_early(ref) if getattr(self._engine, "reads_aside", False) else None
        found = await self._sources.fetch(ref, early)
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
        return _Ready(ref, found.folder, activate, message)

    def _read_early(self, ref: types_v1.WeightsRef) -> Read:
        return lambda folder: self._engine.prepare(folder, Weights(ref.version, ref.digest))

    async def _put_in_force(self, ready: _Ready) -> float:
        """The seconds in which no token was made. Activation over, the engine goes on at once; what it holds is looked
        at meanwhile, and until then no sample leaves."""
        weights = Weights(ready.ref.version, ready.message.digest)
        async with self._activating:
            # Also where the engine updates in flight: requests that name a version are in the gate and finish first.
            async with self._gate.exclusive():
                start = time.perf_counter()
                self._ready.pop(weights.version, None)
                try:
                    self.in_force = InForce(weights, await ready.activate())
                except BaseException:
                    self.in_force = None
                    log.error("version %d could not be activated; no weights are in force now", weights.version)
                    raise
                self._look = asyncio.ensure_future(self._look_at(weights))
                seconds = time.perf_counter() - start
            self._sources.keep(weights, ready.folder)
            self.held = await asyncio.shield(self._look)
            return seconds

    async def _look_at(self, weights: Weights) -> ResidentWeights:
        held = await self._engine.held()
        if held.digest in ("", weights.digest):
            return held
        self.in_force = None
        raise DataLoss(
            f"the engine holds other weights than version {weights.version}: digest {held.digest[:12]}, expected "
            f"{weights.digest[:12]}; nothing is served until another update succeeds",
            reason="HELD_WEIGHTS_DIFFER",
            metadata={"expected": weights.digest, "found": held.digest},
        )
