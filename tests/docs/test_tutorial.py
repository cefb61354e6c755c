"""docs/tutorial.md, followed to the letter with real services: from an empty folder to a model that transformers loads.

Only the models are replaced by tiny random ones, and the sizes in run.yaml by smaller ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tests.docs.test_readme import ROOT
from tests.support.loop import QUIET

pytestmark = pytest.mark.process

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
# (info, text) of every shell block: `sh`, `sh models`, `sh skip`.
BLOCKS = re.findall(r"(?ms)^```sh([^\n]*)\n(.*?)^```", PAGE)
# What the tiny model cannot do, or what would take long: (as on the page, here).
SMALLER = (
    ("maxNewTokens: 24", "maxNewTokens: 8"),
    ("epochs: 2", "epochs: 1"),
    ("steps: 5", "steps: 2"),
    ("promptsPerStep: 8", "promptsPerStep: 2"),
    ("samplesPerPrompt: 4", "samplesPerPrompt: 2"),
    ("trainable_layers: 10", "trainable_layers: 1"),
    ("--max-new-tokens 24", "--max-new-tokens 8"),
    ("max_new_tokens=24", "max_new_tokens=8"),
)


def test_only_the_setup_and_the_models_are_not_run() -> None:
    assert [info.strip() for info, _ in BLOCKS if info] == ["skip", "skip", "models"]


@pytest.mark.timeout(420)
def test_the_tutorial_leads_from_an_empty_folder_to_a_model_that_transformers_loads(
    tmp_path: Path, tiny_folder: Path
) -> None:
    (models,) = [text for info, text in BLOCKS if info.strip() == "models"]
    for folder in re.findall(r"^python -m \S+ (\S+)$", models, re.MULTILINE):
        shutil.copytree(tiny_folder, tmp_path / folder)
    script = "".join(text for info, text in BLOCKS if not info)
    for whole, small in SMALLER:
        assert whole in script, whole
        script = script.replace(whole, small)
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
    finally:
        end_services(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for made in ("first.report.html", "first.report.json", "tuned/config.json", "pairs-trl.jsonl"):
        assert (tmp_path / made).stat().st_size > 0, made
    assert len((tmp_path / "pairs-trl.jsonl").read_text().splitlines()) == 40


def environment() -> dict[str, str]:
    """The activated environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ACCORD_")}
    return {**kept, **QUIET, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NO_COLOR": "1"}


def end_services(folder: Path) -> None:
    """Kills every service whose state is below `folder`."""
    for process in psutil.process_iter(["cmdline"]):
        if any(word.startswith(str(folder)) for word in process.info["cmdline"] or []):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
