"""The page about the console shows pictures that exist and commands that exist."""

from __future__ import annotations

import re
import shlex

import pytest
from tests.docs.test_readme import ROOT, check_accord

pytestmark = pytest.mark.process

PAGE = ROOT / "docs" / "annotate.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"(?s)```sh\n(.*?)```", TEXT) for line in block.splitlines() if line.strip()]
# GitHub, and people on a slow line, load the whole page.
MOST_PICTURE_BYTES = 250_000


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_exists(command: str) -> None:
    check_accord(shlex.split(command, comments=True))


def test_every_picture_is_there_and_small() -> None:
    pictures = re.findall(r'\]\((images/[^)]+)\)|src="(images/[^"]+)"', TEXT)
    assert len(pictures) >= 7
    for found in pictures:
        picture = PAGE.parent / "".join(found)
        assert picture.read_bytes().startswith(b"\x89PNG"), picture
        assert picture.stat().st_size < MOST_PICTURE_BYTES
