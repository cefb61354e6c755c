"""`metrics.jsonl`: one object a step, `version` and the figures by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from accord import atomic


class JsonlWriter:
    """A metrics writer that needs nothing."""

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
    """The version of a line; a line that a crash cut short is of no version and goes."""
    try:
        return float(json.loads(line)["version"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
