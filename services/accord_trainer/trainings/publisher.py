"""Published weights: folders below state_dir/artifacts, named by training, version and digest."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from accord import atomic
from accord.digest import weights_digest
from accord.errors import Internal
from accord.types import v1 as types_v1
from accord_models.delta import find_delta
from accord_models.loading import torch_dtype
from accord_models.publishing import save_model
from accord_models.streaming import save_streamed
from accord_trainer.algorithm import Algorithm
from accord_trainer.distributed.sharded_safetensors import is_sharded
from accord_trainer.distributed.world import Alone, World, all_or_none, leads
from accord_trainer.trainings.weights_digest import published_state, published_tensors

# Suffix of a delta's folder, after the name of the weights that it produces.
DELTA = ".delta"


class Publisher:
    """Writes folders below `root` that `from_pretrained` loads. `address` returns this server's host:port for `grpc`
    URIs once it serves. With several ranks all call the same methods; rank 0 writes."""

    def __init__(
        self,
        root: Path,
        scheme: str,
        address: Callable[[], str],
        world: World | None = None,
        *,
        delta_below: float = 0.0,
    ) -> None:
        """`delta_below`: a delta is published if it has less than this fraction of the whole's bytes; 0: never."""
        self.root = root
        self._scheme = scheme
        self._address = address
        self._world = world or Alone()
        self._delta_below = delta_below

    def publish(
        self, training_id: str, version: int, digest: str, algorithm: Algorithm, scheme: str
    ) -> types_v1.WeightsRef:
        """Publishes the merged model. Publishing a version again writes nothing and returns the same reference."""
        artifact_id = _artifact_id(training_id, version, digest)
        folder = self.root / artifact_id
        if self._world.max(float(leads(self._world) and not folder.is_dir())):
            with all_or_none(self._world):
                self._write(folder, digest, algorithm)
        return self._ref(artifact_id, version, digest, scheme, "merged")

    def add_delta(
        self, ref: types_v1.WeightsRef, training_id: str, base_version: int, base_digest: str
    ) -> dict[str, float]:
        """Adds to `ref`, the published whole, a delta from an earlier version, if that version is still published here
        and the delta is small enough. Returns its figures, published or not: `delta_changed` (fraction of the
        elements), `delta_bytes`, `whole_bytes`, `delta_seconds`; nothing if there is no base."""
        if not self._delta_below:
            return {}
        figures: dict[str, float] = {}
        with all_or_none(self._world):
            base = self.root / _artifact_id(training_id, base_version, base_digest)
            if leads(self._world) and base.is_dir():
                began = time.monotonic()
                name = _artifact_id(training_id, ref.version, ref.digest)
                whole = sum(file.stat().st_size for file in (self.root / name).glob("*.safetensors"))
                found = find_delta(base, self.root / name)
                if found.size.bytes < self._delta_below * whole:
                    found.write(self.root / f"{name}{DELTA}")
                    ref.delta.uri = f"{ref.uri}{DELTA}"
                    ref.delta.base_version, ref.delta.base_digest = base_version, base_digest
                figures = {
                    "delta_changed": found.size.changed / max(found.size.elements, 1),
                    "delta_bytes": found.size.bytes,
                    "whole_bytes": whole,
                    "delta_seconds": time.monotonic() - began,
                }
        return figures

    def publish_adapter(self, training_id: str, version: int, algorithm: Algorithm, scheme: str) -> types_v1.WeightsRef:
        """Publishes only the adapter, to be applied to version 0."""
        artifact_id = f"{training_id}-{version}-adapter"
        folder = self.root / artifact_id
        with all_or_none(self._world):
            if leads(self._world):
                with atomic.folder(folder) as part:
                    algorithm.save_adapter(part)
        digest = weights_digest(folder) if leads(self._world) else ""
        ref = self._ref(artifact_id, version, digest, scheme, "adapter")
        ref.base_version = 0
        return ref

    def _write(self, folder: Path, digest: str, algorithm: Algorithm) -> None:
        """Rank 0 writes. Sharded weights are gathered by all ranks, one tensor at a time."""
        model, dtype = algorithm.merged(), algorithm.publish_dtype
        state = published_state(model)
        written = digest
        if is_sharded(state):
            tensors = published_tensors(state, torch_dtype(dtype))
            try:
                if leads(self._world):
                    written = save_streamed(model, algorithm.tokenizer, folder, dtype, state, tensors)
            finally:
                # Also if rank 0's disk fails: the other ranks gather together with this one.
                for _ in tensors:
                    pass
        elif leads(self._world):
            written = save_model(model, algorithm.tokenizer, folder, dtype)
        if written != digest:
            shutil.rmtree(folder)
            raise Internal(
                f"{folder} was written with digest {written[:12]}, expected {digest[:12]}", reason="PUBLISH_MISMATCH"
            )

    def _ref(self, artifact_id: str, version: int, digest: str, scheme: str, format: str) -> types_v1.WeightsRef:
        if not leads(self._world):
            return types_v1.WeightsRef(version=version, digest=digest, format=format)
        if (scheme or self._scheme) == "grpc":
            uri = f"grpc://{self._address()}/{artifact_id}"
        else:
            uri = (self.root / artifact_id).resolve().as_uri()
        return types_v1.WeightsRef(uri=uri, version=version, digest=digest, format=format)


def _artifact_id(training_id: str, version: int, digest: str) -> str:
    return f"{training_id}-{version}-{digest[:16]}"
