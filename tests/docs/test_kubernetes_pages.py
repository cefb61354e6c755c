"""The pages on components and on upgrading: what they name exists, and nothing that exists is left out."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from tests.docs.test_readme import ROOT

from accord.channel import TLS
from accord_controller.settings import ControllerSettings

pytestmark = pytest.mark.process

COMPONENTS = (ROOT / "docs" / "kubernetes-components.md").read_text(encoding="utf-8")
UPGRADING = (ROOT / "docs" / "upgrading.md").read_text(encoding="utf-8")


def test_every_component_has_its_line_and_no_other_is_named() -> None:
    there = {path.parent.name for path in ROOT.glob("k8s/components/*/kustomization.yaml")}
    rows = [line.split("|")[1] for line in COMPONENTS.splitlines() if line.startswith("| `")]
    first_table = rows[: rows.index(" `spot` ") + 1]
    assert {name for row in first_table for name in re.findall(r"`([a-z-]+)`", row)} == there


@pytest.mark.parametrize("text", [COMPONENTS, UPGRADING], ids=["components", "upgrading"])
def test_flags_variables_and_paths_exist(text: str) -> None:
    flags = set(re.findall(r"`?--((?:tls|health|metrics|drain|migration)[a-z-]*)", text))
    assert flags
    assert {flag.replace("-", "_") for flag in flags} <= set(ControllerSettings.model_fields)
    for variable in re.findall(r"ACCORD_TLS_([A-Z_]+)", text):
        assert variable.lower() in TLS.__dataclass_fields__
    for path in re.findall(r"`((?:k8s|tests)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m (accord_\w+\.migrate)", text):
        environment = {**os.environ, "COLUMNS": "120"}
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "--migration-seconds" in done.stdout
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?m)^make ([a-z-]+)", text):
        assert f"\n{target}:" in makefile
