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
    """Every file of resources in base, components and overlays; kustomizations and patches are left out."""
    found = [*ROOT.glob("base/**/*.yaml"), *ROOT.glob("components/**/*.yaml"), *ROOT.glob("overlays/**/*.yaml")]
    return sorted(path for path in found if path.name != "kustomization.yaml" and path.parent.name != "patches")


def documents(text: str) -> list[Object]:
    """The objects of a YAML stream."""
    return [document for document in yaml.safe_load_all(text) if document]


def command() -> list[str]:
    """`kustomize build`, else `kubectl kustomize` of 1.21 or newer (older ones do not support components)."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        version = subprocess.run(
            ["kubectl", "version", "--client", "--output=yaml"], capture_output=True, text=True, check=False
        )
        if "kustomizeVersion: v5" in version.stdout or "kustomizeVersion: v4" in version.stdout:
            return ["kubectl", "kustomize"]
    pytest.skip("manifests cannot be rendered: neither kustomize nor kubectl 1.21 or newer is installed")


@functools.cache
def rendered(folder: str) -> str:
    """The rendered YAML of a folder below k8s/."""
    done = subprocess.run([*command(), str(ROOT / folder)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
