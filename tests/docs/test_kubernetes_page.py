"""The page about Kubernetes: its commands, paths and names exist, and what it shows is what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from tests.docs.test_readme import FOREIGN, ROOT, check_accord, check_make, check_python
from tests.support.kustomize import documents, rendered

from accord_controller.launchers.kubernetes import pod_diagnosis
from accord_controller.operator import seen_runs, status

pytestmark = pytest.mark.process

TEXT = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"(?s)```sh\n(.*?)```", TEXT) for line in block.splitlines() if line.strip()]
COLUMNS = [
    column["name"].upper()
    for column in yaml.safe_load((ROOT / "k8s/crds/runs.accord.dev.yaml").read_text())["spec"]["versions"][0][
        "additionalPrinterColumns"
    ]
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_exists(command: str) -> None:
    words = shlex.split(command, comments=True)
    program = Path(words[0]).name
    if program == "accord":
        check_accord(words)
    elif program == "make":
        check_make(words)
    elif program.startswith("python"):
        check_python(words)
    else:
        assert program in FOREIGN
    for word in words:
        if word.startswith("k8s/"):
            assert (ROOT / word / "kustomization.yaml").is_file(), f"{word} does not exist"


def test_the_images_that_the_page_loads_are_those_that_the_overlay_runs() -> None:
    loaded = set(re.findall(r"accord/[a-z-]+:[0-9.]+", TEXT))
    run = set()
    for one in documents(rendered("overlays/local")):
        if one["kind"] in ("Deployment", "StatefulSet"):
            run |= {container["image"] for container in one["spec"]["template"]["spec"]["containers"]}
    assert loaded == run


def test_what_kubectl_shows_has_the_columns_that_there_are() -> None:
    headers = [line.split() for line in TEXT.splitlines() if line.startswith("NAME") and "STATE" in line]
    assert headers
    for header in headers:
        assert header[1:] == COLUMNS


def test_conditions_and_names_of_the_page_are_those_of_the_operator() -> None:
    for kind in (status.ACCEPTED, status.READY, status.FAILED):
        assert f"`{kind}`" in TEXT
    source = Path(pod_diagnosis.__file__).read_text()
    for reason in ("IMAGE_MISSING", "UNSCHEDULABLE", "CONFIG_MISSING", "QUOTA_FULL"):
        assert f'"{reason}"' in source
        assert f"`{status.condition('x', False, reason)['reason']}`" in TEXT
    assert f"`{seen_runs.NAME}`" in TEXT


def test_every_relative_link_of_the_page_leads_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", TEXT):
        assert "://" in link or (ROOT / "docs" / link).exists(), link
