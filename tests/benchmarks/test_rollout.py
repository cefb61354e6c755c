"""benchmarks/rollout.py runs: every part that needs no vLLM, with real services, and its figures are what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]


def test_the_contract_is_measured_beside_the_engine_itself_and_over_replicas(tiny_folder: Path, tmp_path: Path) -> None:
    """The command itself refuses to compare two sides that drew other tokens."""
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "benchmarks" / "rollout.py"), "--only", "contract", "replicas", "engine",
            "--model", str(tiny_folder), "--dtype", "float32", "--samples", "4", "--tokens", "8", "--rounds", "2",
            "--contract-samples", "1000", "--replicas", "1", "3", "--batches", "1", "--batch-seconds", "0.3",
            "--json", str(tmp_path / "figures.json"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["contract"]["client_us"] > 0
    assert figures["contract"]["service_us"] > 0
    assert [(row["replicas"], row["samples"]) for row in figures["replicas"]] == [(1, 32), (3, 96)]
    # A simulated engine waits at least so long, so nothing can be faster than linear.
    assert all(0 < row["linear"] < 1.01 for row in figures["replicas"])
    direct, through = figures["engine"]["sides"]
    assert direct["tokens"] == through["tokens"]
    assert figures["engine"]["ratio"] > 0
