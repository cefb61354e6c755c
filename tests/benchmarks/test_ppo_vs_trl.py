"""The comparison with TRL: its command line, tables and figures, and a real run of Accord's side with a tiny model."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console
from tests.support.tiny import make_tiny_model

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "ppo_vs_trl.py"


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("costs")


@pytest.fixture
def workload(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("workload")


def rendered(table: object) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_help_names_every_part_and_needs_no_torch() -> None:
    command = [sys.executable, "-X", "importtime", str(SCRIPT), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert all(part in done.stdout for part in ("ppo", "grpo", "rm", "curve", "soak"))
    assert "| torch" not in done.stderr


def test_ratios_are_of_the_counted_steps_and_leave_out_what_a_side_does_not_spend(costs: ModuleType) -> None:
    ours = costs.Side("Accord", 1, [costs.StepCost(90, 90, 90, 1, 0.1), costs.StepCost(2, 0, 8, 5, 0.3)], 2 * costs.GIB)
    peer = costs.Side("TRL", 1, [costs.StepCost(1, 1, 1, 1, 0.1), costs.StepCost(4, 6, 40, 60, 0.2)], 10 * costs.GIB)
    found = costs.ratios(ours, peer)
    assert found == {"generation": 2.0, "update": 5.0, "total": 5.0, "peak_memory": 5.0}
    text = rendered(costs.cost_table("ppo", ours, [peer]))
    assert "2.0x" in text
    assert text.count("5.0x") == 3
    assert "10.00" in text


def test_the_curve_ends_with_the_mean_of_the_last_third(costs: ModuleType) -> None:
    side = costs.Side("Accord", 0, [costs.StepCost(1, 1, 1, 1, score) for score in (0.0, 0.1, 0.2, 0.3, 0.4, 0.6)], 1)
    assert side.late_score == pytest.approx(0.5)
    assert "0.500" in rendered(costs.curve_table("curve", [side]))
    assert side.as_dict()["cpu_seconds_a_step"]["total"] == 3


def test_both_sides_get_the_same_prompts_and_pairs(workload: ModuleType) -> None:
    given = workload.Workload("ppo", "m", str(ROOT / "examples/prompts.jsonl"), steps=2, samples=8, group=2, seed=3)
    there = workload.Workload.from_json(given.to_json())
    assert there == given
    prompts = given.step_prompts()
    assert there.step_prompts() == prompts
    assert [len(set(step)) for step in prompts] == [4, 4, 4]
    pairs = given.step_pairs()
    assert there.step_pairs() == pairs
    assert [len(step) for step in pairs] == [16, 16, 16]
    assert all(pair["chosen"] != pair["rejected"] for step in pairs for pair in step)


def test_too_few_prompts_are_an_error_that_says_so(workload: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "few.jsonl").write_text('{"prompt": "one"}\n')
    with pytest.raises(SystemExit, match="has 1 prompts; a step needs 8"):
        workload.Workload("ppo", "m", str(tmp_path / "few.jsonl"), steps=1).step_prompts()


def test_the_soak_runs_and_writes_memory_and_time_of_every_step(tmp_path: Path) -> None:
    model, out = make_tiny_model(tmp_path / "model"), tmp_path / "soak.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--only", "soak", "--model", str(model), "--soak-steps", "3", "--json", str(out)],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    soak = json.loads(out.read_text())["parts"]["soak"]
    assert len(soak["steps"]) == 3
    assert set(soak["summary"]) == {
        "seconds a step", "CPU-seconds a step", "rollout MiB", "reward MiB", "trainer MiB",
    }  # fmt: skip
    assert all(step["rss"]["trainer"] > 50 * 2**20 for step in soak["steps"])
    assert "trainer MiB" in done.stdout
