"""docs/troubleshooting.md: the reasons, commands, flags and options that it names exist."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
from tests.docs.test_readme import ROOT, check_accord

from accord_trainer.algorithms.policy_gradient import PolicyGradientOptions

pytestmark = pytest.mark.process

TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SECTIONS = re.split(r"(?m)^### ", TEXT)[1:]
COMMANDS = sorted(set(re.findall(r"`(accord [^`]+)`", TEXT)))


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.splitlines()[0])
def test_every_symptom_has_a_cause_and_a_fix(section: str) -> None:
    assert "*Cause.*" in section
    assert "*Fix.*" in section


def test_there_are_at_least_25_symptoms() -> None:
    assert len(SECTIONS) >= 25


def test_every_reason_is_one_that_the_code_gives() -> None:
    reasons = {reason for line in TEXT.splitlines() for reason in re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=\S+)?`", line)}
    sources = subprocess.run(
        ["git", "grep", "-hoE", r"\b[A-Z]+(_[A-Z]+)+\b", "--", "services/*.py", "clients/python/*.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    settings = {reason for reason in reasons if reason.startswith(("ACCORD_", "OMP_"))}
    assert reasons - settings <= set(sources)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_exists(command: str) -> None:
    words = [word for word in shlex.split(command) if word not in ("...", "--debug", "--resume`")]
    if len(words) > 1:
        check_accord(words)


def test_the_options_that_save_memory_exist() -> None:
    (line,) = re.findall(r"(?s)most effective ones are\n(.*?)`ACCORD_TRAINER_UNDO", TEXT)
    named = re.findall(r"`([a-z_]+)`", line)
    assert len(named) == 5
    assert set(named) <= set(PolicyGradientOptions.model_fields)
