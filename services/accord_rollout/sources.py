"""Where weights come from: fetched by URI, whatever their format made into one complete, verified model folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accord.errors import InvalidArgument, Unimplemented
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_rollout.engine import Weights
from accord_runtime import artifacts

FORMATS = ("merged",)


@dataclass(frozen=True)
class Found:
    """A complete model on this machine's disk; `failed`: the sources that were tried before `uri`."""

    folder: Path
    digest: str
    uri: str
    failed: Sequence[rollout_v1.FailedSource] = ()


class Sources:
    """Fetches into `cache`."""

    formats = FORMATS
    schemes = tuple(artifacts.TRANSPORTS)

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    async def fetch(self, ref: types_v1.WeightsRef) -> Found:
        """The model that `ref` means. Errors as artifacts.fetch; Unimplemented/ADAPTER_UNSUPPORTED."""
        if ref.format == "adapter":
            raise Unimplemented(
                "this engine serves merged weights only: publish with format `merged`", reason="ADAPTER_UNSUPPORTED"
            )
        if ref.format not in ("", *self.formats):
            raise InvalidArgument.at("weights.format", f"unknown format {ref.format!r}; there is: merged, adapter")
        return Found(await artifacts.fetch(ref, self._cache), ref.digest, ref.uri)

    def keep(self, weights: Weights, folder: Path) -> None:
        """Remembers where a version that came into force lies."""
