"""docs/engine-contract.md: every check stands on it, and its commands, followed to the letter, hold the example."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from accord.conformance import suite
from accord_runtime.artifacts.fetch import schemes

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/engine-contract.md").read_text(encoding="utf-8")


def test_every_check_stands_on_the_page_as_it_is() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert {check.name: check.demands for check in suite.chosen()}.items() <= rows.items()


def test_every_scheme_stands_on_the_page() -> None:
    rows = " ".join(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", PAGE, re.MULTILINE))
    assert [scheme for scheme in schemes() if f"`{scheme}`" not in rows] == []


def test_an_engine_in_another_language_meets_every_check_when_the_page_is_followed(tmp_path: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    skipped = shutil.ignore_patterns("node_modules", "dist", "package-lock.json")
    shutil.copytree(ROOT / "examples/engine_in_typescript", tmp_path / "examples/engine_in_typescript", ignore=skipped)
    shutil.copytree(ROOT / "protos", tmp_path / "protos", ignore=shutil.ignore_patterns("third_party"))
    (script,) = re.findall(r"```sh\n(cd examples/engine_in_typescript\n.*?)```", PAGE, re.DOTALL)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = _run(["timeout", "280", "bash", "-euo", "pipefail", "-c", script], tmp_path, environment)
    if re.search(r"npm (error|ERR!)", done.stderr):
        pytest.skip(f"npm could not install: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stdout + done.stderr
    (counts,) = re.findall(r"^(\d+) met, 0 unmet, (\d+) skipped$", done.stdout, re.MULTILINE)
    met, skipped_checks = map(int, counts)
    # What interrupts work in progress may find it done already, or not yet begun, on a busy machine.
    assert met + skipped_checks == len(suite.chosen())
    assert skipped_checks <= 3


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """To its end; whatever it started ends with it."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=290)
        return subprocess.CompletedProcess(command, process.returncode, out, err)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
