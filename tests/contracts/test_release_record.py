"""Recording a release: a contract under a version never changes, and what is recorded is what is spoken."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.released import Contract, contracts

pytestmark = pytest.mark.process

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    return runpy.run_path(str(SCRIPTS / "release_contracts.py"))


def test_todays_contract_can_be_recorded_and_speaks_every_call_of_the_releases(
    script: dict[str, Any], tmp_path: Path
) -> None:
    path = script["record"](tmp_path, "9.9.9", script["image"]())
    assert path.name == "v9.9.9.binpb"
    today = set(Contract(path).methods)
    assert contracts(), "at least one release is recorded"
    for contract in contracts():
        assert set(contract.methods) <= today, contract.name


def test_the_same_version_with_another_contract_is_refused(script: dict[str, Any], tmp_path: Path) -> None:
    contract = script["image"]()
    script["record"](tmp_path, "9.9.9", contract)
    script["record"](tmp_path, "9.9.9", contract)
    with pytest.raises(SystemExit, match="raise the version"):
        script["record"](tmp_path, "9.9.9", contract + b"\x0a\x00")
    assert (tmp_path / "v9.9.9.binpb").read_bytes() == contract
