"""The manifests, as files and rendered."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2] / "k8s"
Object = dict[str, Any]


def resource_files() -> list[Path]:
    """Every file of resources, base and components, without those that only say how files go together, and patches."""
    found = [*ROOT.glob("base/**/*.yaml"), *ROOT.glob("components/**/*.yaml"), *ROOT.glob("overlays/**/*.yaml")]
    return sorted(path for path in found if path.name != "kustomization.yaml" and path.parent.name != "patches")


def documents(text: str) -> list[Object]:
    """The objects of a YAML stream."""
    return [document for document in yaml.safe_load_all(text) if document]


def command() -> list[str]:
    """What renders: `kustomize build`, else `kubectl kustomize` of 1.21 or newer (older ones know no components)."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        told = subprocess.run(
            ["kubectl", "version", "--client", "--output=yaml"], capture_output=True, text=True, check=False
        )
        if "kustomizeVersion: v5" in told.stdout or "kustomizeVersion: v4" in told.stdout:
            return ["kubectl", "kustomize"]
    pytest.skip("neither kustomize nor a kubectl of 1.21 or newer is installed: nothing can be rendered")


@functools.cache
def rendered(folder: str) -> str:
    """What a folder below k8s/ comes to, as YAML."""
    done = subprocess.run([*command(), str(ROOT / folder)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
