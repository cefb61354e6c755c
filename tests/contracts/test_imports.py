"""What starts fast stays fast: the client and every --help know no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

HEAVY = ("torch", "transformers", "peft", "matplotlib")
HELP = """
import runpy, sys
sys.argv = ["{name}", "--help"]
try:
    {start}
except SystemExit as end:
    assert not end.code, end.code
"""
REPORT = "import sys; print('heavy:', *[name for name in {heavy!r} if name in sys.modules])"


def _heavy_after(code: str) -> tuple[str, list[str]]:
    """Standard output of `code` in a fresh interpreter and which heavy packages it imported."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{REPORT.format(heavy=HEAVY)}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, _, heavy = done.stdout.rpartition("heavy:")
    return said, heavy.split()


def test_importing_the_client_imports_nothing_heavy() -> None:
    code = "import accord\nfrom accord import Client, SyncClient\nfrom accord.rollout import v1"
    assert _heavy_after(code)[1] == []


@pytest.mark.parametrize("name", ["rollout", "reward", "preference", "trainer", "controller", "console"])
def test_help_of_a_service_lists_its_flags_and_imports_nothing_heavy(name: str) -> None:
    said, heavy = _heavy_after(
        HELP.format(name=f"accord_{name}", start=f"runpy.run_module('accord_{name}', run_name='__main__')")
    )
    assert "--port" in said
    assert "--allow-insecure" in said
    assert heavy == []


def test_help_of_the_command_line_imports_nothing_heavy() -> None:
    said, heavy = _heavy_after(HELP.format(name="accord", start="from accord.cli.main import main; main()"))
    assert "runs" in said
    assert "preferences" in said
    assert heavy == []
