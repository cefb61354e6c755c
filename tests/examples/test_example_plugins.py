"""The skeletons that CONTRIBUTING.md teaches from are plug-ins that keep their seams' contracts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.example_plugins import ROOT, environment

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]


def run(arguments: list[str], folder: Path) -> str:
    """Standard output of a Python process in which the example package is installed."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment(folder), capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_engine_skeleton_passes_the_engines_conformance_suite(tmp_path: Path) -> None:
    said = run(
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/conformance/test_engine.py", "-k", "plain"], tmp_path
    )
    assert "passed" in said
    assert "failed" not in said


def test_algorithm_skeleton_passes_the_algorithms_conformance_suite(tmp_path: Path) -> None:
    said = run(["-m", "accord_trainer.conformance", "best_of_group"], tmp_path)
    assert "best_of_group" in said


def test_scorer_skeleton_scores_through_a_real_service(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from pathlib import Path
from tests.support.reward import item, reward_client, scorer, values

async def main():
    async with reward_client(Path(sys.argv[1])) as client:
        spec = scorer("exclamations", {"most": 2})
        items = [item("q", "no", "a"), item("q", "yes!", "b"), item("q", "!!!", "c")]
        print(values(await client.reward.score(items, scorers=[spec])))

asyncio.run(main())
"""
    assert json.loads(run(["-c", code, str(tmp_path / "state")], tmp_path / "installed")) == [0.0, 0.5, 1.0]


def test_format_skeleton_is_detected_and_writes_what_it_reads(tmp_path: Path) -> None:
    source = tmp_path / "pairs.tsv"
    source.write_text("prompt\tchosen\trejected\nWhat is rain?\tWater that falls.\tI do not know.\n")
    code = """
import sys
from accord import formats
from accord.formats.layouts.layout import detect
read = formats.read(sys.argv[1]).records
print(detect(__import__("pathlib").Path(sys.argv[1])))
formats.layout_of("tabs").write(__import__("pathlib").Path(sys.argv[2]), read)
"""
    target = tmp_path / "again.tsv"
    assert run(["-c", code, str(source), str(target)], tmp_path / "installed").strip() == "tabs"
    assert target.read_text() == source.read_text()
