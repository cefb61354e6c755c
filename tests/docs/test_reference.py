"""The generated pages of docs/reference: the catalogue of errors, the fields of a run file, the RPCs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from accord.reasons import REASONS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.process
def test_the_pages_are_fresh_and_know_every_reason_of_the_code() -> None:
    command = [sys.executable, str(ROOT / "scripts/generate_reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_a_reason_says_what_it_means_and_what_to_do(reason: str) -> None:
    assert re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", reason)
    for text in (REASONS[reason].meaning, REASONS[reason].remedy):
        assert re.fullmatch(r"\S.*\.", text)
        assert len(text) < 250


# Options of other programs that a remedy names.
FOREIGN = {"--logprobs-mode", "--max-restarts"}


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_a_reason_names_commands_and_options_that_exist(reason: str) -> None:
    text = f"{REASONS[reason].meaning} {REASONS[reason].remedy}"
    commands = (ROOT / "docs/reference/cli.md").read_text()
    known = commands + (ROOT / "docs/reference/settings.md").read_text()
    assert [
        name for name in re.findall(r"`(accord [a-z -]+?)(?: --[a-z]+)?`", text) if f"\n## {name}\n" not in commands
    ] == []
    options = set(re.findall(r"--[a-z-]+", text)) - FOREIGN
    assert [option for option in options if not re.search(rf"`{option}[`,]", known)] == []
