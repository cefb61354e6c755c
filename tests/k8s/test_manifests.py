"""The manifests without a cluster: valid for every Kubernetes that is supported, hardened, and complete."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from tests.support.kustomize import ROOT, Object, documents, rendered, resource_files

pytestmark = pytest.mark.process

# The oldest that is supported and the newest whose schemas are here.
VERSIONS = ("1.30", "1.37")
OVERLAYS = ("overlays/local", "overlays/production")
SERVICES = ("controller", "preference", "console", "rollout", "reward", "trainer")
WORKLOADS = ("Deployment", "StatefulSet", "Job")
# Of other projects, with schemas of their own.
FOREIGN = ("CustomResourceDefinition", "PodMonitor", "PrometheusRule", "ScaledObject", "Certificate", "Issuer", "Run")


def check(document: Object, version: str) -> None:
    if document["kind"] not in FOREIGN:
        kubernetes_validate.validate(document, version, strict=True)


def workloads(folder: str) -> list[Object]:
    return [document for document in documents(rendered(folder)) if document["kind"] in WORKLOADS]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", resource_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_of_base_and_components_is_valid_by_itself(path: Path, version: str) -> None:
    found = documents(path.read_text())
    assert found
    for document in found:
        check(document, version)


def test_a_wrong_field_would_be_found() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        check({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"prots": []}}, "1.37")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", OVERLAYS)
def test_what_an_overlay_renders_is_valid(folder: str, version: str) -> None:
    for document in documents(rendered(folder)):
        check(document, version)


@pytest.mark.parametrize("folder", ["base", *OVERLAYS])
def test_every_service_has_an_account_an_address_a_budget_and_a_network_policy(folder: str) -> None:
    there = {(document["kind"], document["metadata"]["name"]) for document in documents(rendered(folder))}
    for service in SERVICES:
        for kind in ("ServiceAccount", "Service", "PodDisruptionBudget", "NetworkPolicy"):
            assert (kind, service) in there


@pytest.mark.parametrize("folder", OVERLAYS)
def test_every_pod_is_hardened_asks_for_resources_and_is_probed(folder: str) -> None:
    found = workloads(folder)
    assert {one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] for one in found} >= {
        *SERVICES,
        "operator",
    }
    for one in found:
        pod: dict[str, Any] = one["spec"]["template"]["spec"]
        name = one["metadata"]["name"]
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["enableServiceLinks"] is False, name
        # Only what talks to the API server has a token for it.
        assert pod.get("automountServiceAccountToken", False) is (name in ("controller", "operator")), name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert one["kind"] == "Job" or "livenessProbe" in container, name


def test_services_that_speak_grpc_are_asked_over_grpc() -> None:
    for one in workloads("overlays/local"):
        component = one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
        if component not in ("console", "operator"):
            assert "grpc" in one["spec"]["template"]["spec"]["containers"][0]["readinessProbe"], component


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_an_engine_is_one_line(engine: str, tmp_path: Path) -> None:
    # An overlay of a user, in a folder of their own: the base and one component.
    k8s = os.path.relpath(ROOT, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{k8s}/base]\ncomponents: [{k8s}/components/engine-{engine}]\n"
    )
    found = workloads(os.path.relpath(tmp_path, ROOT))
    rollouts = [one for one in found if one["metadata"]["labels"].get("accord.dev/template") == "rollout"]
    (rollout,) = rollouts
    (container,) = rollout["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"accord/rollout-{engine}"
    assert rollout["spec"]["replicas"] == 1
