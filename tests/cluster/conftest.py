"""Accord deployed from nothing on the cluster that KUBECONFIG names, in a namespace of its own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.deployed import NAMESPACE, Deployed
from tests.support.engine_plugin import objects_for
from tests.support.kustomize import documents
from tests.support.loop import write_prompts

import kube

# Leave it deployed and use it again next time: for work on the tests.
KEEP = bool(os.environ.get("ACCORD_KEEP"))
LOCAL = kube.ROOT / "k8s/overlays"


def why_not() -> str:
    """Why there is nothing to test on; empty where there is."""
    if not os.environ.get("KUBECONFIG"):
        return "KUBECONFIG names no cluster"
    if shutil.which("kubectl") is None:
        return "kubectl is not installed"
    try:
        kube.overlay()
    except kube.KubectlError as error:
        return str(error)
    return ""


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Deployed]:
    """Everything is deployed with a tiny model on the data volume; afterwards the namespace goes."""
    if reason := why_not():
        pytest.skip(f"no cluster to test on: {reason}")
    folder = tmp_path_factory.mktemp("overlay")
    above = os.path.relpath(LOCAL / kube.overlay(), folder.resolve())
    (folder / "kustomization.yaml").write_text(OVERLAY.format(namespace=NAMESPACE, overlay=above))
    if not KEEP:
        kube.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s", timeout=200)
    try:
        kube.deploy(folder)
        rendered = documents(kube.kubectl("kustomize", str(folder)))
        (transformers,) = [one for one in rendered if one["metadata"]["name"] == "rollout-transformers"]
        for one in objects_for(transformers):
            kube.kubectl("apply", "-f", "-", text=json.dumps(one))
        prompts = write_prompts(folder / "prompts.jsonl")
        kube.copy_in(NAMESPACE, {"models/tiny": tiny_folder, "prompts.jsonl": prompts}, "accord/trainer:0.1.0")
        yield Deployed(folder)
    finally:
        if not KEEP:
            kube.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")


# Newcomers that cannot start are to be refused while a test waits.
OVERLAY = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {namespace}
resources: ["{overlay}"]
patches:
  - target: {{kind: StatefulSet, name: controller}}
    patch: |-
      - op: add
        path: /spec/template/spec/containers/0/env/-
        value: {{name: ACCORD_CONTROLLER_SWAP_SECONDS, value: "300"}}
"""
