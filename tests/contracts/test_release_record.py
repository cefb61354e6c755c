"""Recording a release: a contract under a version never changes, and what is recorded is what is spoken."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.released import Contract, contracts

from release_contracts import image, record

pytestmark = pytest.mark.process


def test_todays_contract_can_be_recorded_and_speaks_every_call_of_the_releases(tmp_path: Path) -> None:
    path = record(tmp_path, "9.9.9", image())
    assert path.name == "v9.9.9.binpb"
    today = set(Contract(path).methods)
    assert contracts(), "at least one release is recorded"
    for contract in contracts():
        assert set(contract.methods) <= today, contract.name


def test_the_same_version_with_another_contract_is_refused(tmp_path: Path) -> None:
    contract = image()
    record(tmp_path, "9.9.9", contract)
    record(tmp_path, "9.9.9", contract)
    with pytest.raises(SystemExit, match="Raise the version"):
        record(tmp_path, "9.9.9", contract + b"\x0a\x00")
    assert (tmp_path / "v9.9.9.binpb").read_bytes() == contract
