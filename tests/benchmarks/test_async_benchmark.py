"""benchmarks/async.py runs: real services, an engine simulated to take its time, and figures that are what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.process, pytest.mark.timeout(420)]


def test_runs_of_both_kinds_are_measured_beside_generation_and_training_of_their_own(
    tiny_folder: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "benchmarks" / "async.py"), "--model", str(tiny_folder), "--reward-model",
            str(tiny_folder), "--staleness", "0", "1", "--steps", "4", "--prompts", "2", "--tokens", "8",
            "--feedback", "8", "--heldout", "4", "--engine-waits", "0.3", "--json", str(tmp_path / "figures.json"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    in_turn, meanwhile = json.loads((tmp_path / "figures.json").read_text())
    assert [side["max_staleness"] for side in (in_turn, meanwhile)] == [0, 1]
    assert "aim: a ratio of" in done.stdout
    for side in (in_turn, meanwhile):
        assert len(side["steps"]) == 4
        assert side["generate"] >= 0.3, "the simulated engine takes that at least"
        assert side["train"] > 0
    # In turn a step is drawn and trained on between the one before and its own end.
    assert in_turn["seconds"] >= in_turn["generate"] + in_turn["train"] - 0.05
    assert in_turn["ratio"] > 1
    assert all(step["staleness"] == 0 for step in in_turn["steps"])
    assert any(step["staleness"] > 0 for step in meanwhile["steps"])
