"""docs/preferences.md tells of every format and setting that there is, and of none that there is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from accord import formats
from accord.cli.main import app
from accord_preference.settings import PreferenceSettings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "preferences.md").read_text()


def test_every_format_has_its_row() -> None:
    assert sorted(re.findall(r"^\| `([a-z][\w-]*)` \|", PAGE, re.MULTILINE)) == formats.layout_names()


def test_settings_that_are_named_exist() -> None:
    names = {name.lower() for name in re.findall(r"ACCORD_PREFERENCE_(\w+)", PAGE)} | {"max_text_bytes"}
    assert names <= set(PreferenceSettings.model_fields)


@pytest.mark.parametrize("command", ["import", "export"])
def test_options_that_are_shown_exist(command: str) -> None:
    shown = re.findall(rf"^accord preferences {command} (.*)$", PAGE, re.MULTILINE)
    assert shown
    told = CliRunner().invoke(app, ["preferences", command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    for line in shown:
        for option in re.findall(r"--[\w-]+", line.split("#")[0]):
            assert option in told
