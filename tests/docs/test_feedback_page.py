"""The page about feedback shows commands that exist and fields that a run file has."""

from __future__ import annotations

import re
import shlex

import pytest
from tests.docs.test_readme import ROOT, check_accord, check_python

from accord.controller import v1 as controller_v1

pytestmark = pytest.mark.process

TEXT = (ROOT / "docs" / "feedback.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"(?s)```sh\n(.*?)```", TEXT) for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_exists(command: str) -> None:
    words = shlex.split(command, comments=True)
    (check_accord if words[0].endswith("accord") else check_python)(words)


def test_what_a_run_waits_for_is_named_as_the_contract_names_it() -> None:
    (block,) = re.findall(r"(?s)```yaml\n(.*?)```", TEXT)
    shown = set(re.findall(r"(?m)^    (\w+):", block))
    assert shown == {"redundancy", "threshold", "minJudgements", "minAgreement", "maxWaitSeconds", "criteria"}
    assert shown <= {field.json_name for field in controller_v1.HumanAnnotators.DESCRIPTOR.fields}
