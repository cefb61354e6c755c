"""The loaded reward models, addressed by the digest of their weights."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from accord.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from accord.types import v1 as types_v1
from accord_reward.scorer import RewardModelHandle
from accord_runtime.artifacts.fetch import fetch

log = logging.getLogger(__name__)
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelLimits:
    """The maximum number of models in memory, the idle time before eviction, and the compute settings."""

    max_models: int
    idle_seconds: float
    dtype: str
    threads: int


@dataclass
class _Loaded:
    model: RewardModelHandle
    last_used: float  # time.monotonic, seconds


class Models:
    """Loads, provides and unloads reward models. `on_unload` receives the digest of each model that is unloaded."""

    def __init__(self, cache: Path, limits: ModelLimits, compute: Executor, on_unload: Callable[[str], None]) -> None:
        self._cache = cache
        self._limits = limits
        self._compute = compute
        self._on_unload = on_unload
        self._loaded: dict[str, _Loaded] = {}
        self._loading = asyncio.Lock()

    @property
    def digests(self) -> list[str]:
        """The digests of the loaded models, sorted."""
        return sorted(self._loaded)

    async def load(self, weights: types_v1.WeightsRef) -> str:
        """Fetches, verifies and loads a reward model; returns its digest. Does nothing if it is already loaded.

        Errors: FailedPrecondition/DIGEST_MISMATCH; InvalidArgument for an adapter, a malformed digest, or a folder that
        is not a reward model (BAD_MODEL); ResourceExhausted/TOO_MANY_MODELS if all of max_models are in use.
        """
        if not _DIGEST.fullmatch(weights.digest):
            raise InvalidArgument.at("weights.digest", "must be a SHA-256, 64 lower-case hexadecimal digits")
        if weights.format not in ("", "merged"):
            raise InvalidArgument.at("weights.format", f"{weights.format!r} cannot be loaded; publish it as `merged`")
        if weights.digest not in self._loaded:
            folder = await fetch(weights, self._cache)
            async with self._loading:
                if weights.digest not in self._loaded:
                    self._evict()
                    await self._read(folder, weights.digest)
        return weights.digest

    def get(self, digest: str, field: str = "model_digest") -> RewardModelHandle:
        """The loaded model. FailedPrecondition/MODEL_NOT_LOADED names the models that are loaded."""
        if (found := self._loaded.get(digest)) is None:
            raise FailedPrecondition(
                f"{field}: no model {digest[:12]} is loaded; call LoadModel first. Loaded: {self._names() or 'none'}",
                reason="MODEL_NOT_LOADED",
                metadata={"digest": digest},
            )
        found.last_used = time.monotonic()
        return found.model

    def unload(self, digest: str) -> None:
        """Unloads a model after its running batches. Does nothing if it is not loaded."""
        if self._loaded.pop(digest, None) is not None:
            log.info("unloaded reward model %s", digest[:12])
            self._on_unload(digest)

    async def _read(self, folder: Path, digest: str) -> None:
        def read() -> RewardModelHandle:
            # Importing torch takes seconds; a service that scores only by rules never needs it.
            from accord_reward.inference import RewardModel

            return RewardModel(folder, self._limits.dtype, self._limits.threads)

        started = time.perf_counter()
        model = await asyncio.get_running_loop().run_in_executor(self._compute, read)
        self._loaded[digest] = _Loaded(model, time.monotonic())
        log.info("loaded reward model %s from %s in %.1f s", digest[:12], folder, time.perf_counter() - started)

    def _evict(self) -> None:
        if len(self._loaded) < self._limits.max_models:
            return
        oldest = min(self._loaded, key=lambda digest: self._loaded[digest].last_used)
        if time.monotonic() - self._loaded[oldest].last_used < self._limits.idle_seconds:
            raise ResourceExhausted(
                f"{len(self._loaded)} reward models are loaded, the maximum (max_models), and all were used in the "
                f"last {self._limits.idle_seconds:g} s; unload one of {self._names()}",
                reason="TOO_MANY_MODELS",
                metadata={"max_models": str(self._limits.max_models)},
            )
        self.unload(oldest)

    def _names(self) -> str:
        return ", ".join(digest[:12] for digest in self.digests)
