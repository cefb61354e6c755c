"""`metrics.jsonl`: one object per step, with `version` and the metrics by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from accord import atomic


class JsonlWriter:
    """A metrics writer without dependencies."""

    def __init__(self, folder: Path, first: int) -> None:
        path = folder / "metrics.jsonl"
        if path.is_file():
            kept = [line for line in path.read_text().splitlines() if _version(line) < first]
            atomic.write_bytes(path, "".join(f"{line}\n" for line in kept).encode())
        folder.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def write(self, version: int, metrics: Mapping[str, float]) -> None:
        print(json.dumps({"version": version, **dict(sorted(metrics.items()))}), file=self._file, flush=True)

    def close(self) -> None:
        self._file.close()


def _version(line: str) -> float:
    """The version of a line. A line that a crash truncated has none and is dropped."""
    try:
        return float(json.loads(line)["version"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
