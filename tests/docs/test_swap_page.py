"""The page about swapping engines: its commands exist, and what it counts is so."""

from __future__ import annotations

import re
import shlex

import pytest
from tests.docs.test_readme import ROOT, check_accord

from accord.conformance.suite import acceptance

pytestmark = pytest.mark.process

TEXT = (ROOT / "docs" / "swap-an-engine.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"(?s)```sh\n(.*?)```", TEXT) for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_exists(command: str) -> None:
    check_accord(shlex.split(command, comments=True))


def test_the_checks_are_as_many_as_the_page_says() -> None:
    assert f"{len(acceptance())} checks" in TEXT
