"""The kubectl calls of the cluster demo and the cluster tests, for any cluster that KUBECONFIG names."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Kubernetes 1 has gRPC probes from this minor version on.
OLD = 25
LOADER = "loader"
FORWARDED = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


class KubectlError(Exception):
    """kubectl failed; the text is its message."""


def kubectl(*arguments: str, text: str | None = None, data: bytes | None = None, timeout: float = 120) -> str:
    """The output of `kubectl ARGUMENTS`, with `text` or `data` as standard input."""
    given = text.encode() if text is not None else data
    try:
        done = subprocess.run(["kubectl", *arguments], input=given, capture_output=True, check=False, timeout=timeout)
    except FileNotFoundError:
        raise KubectlError("kubectl is not installed") from None
    except subprocess.TimeoutExpired:
        raise KubectlError(f"kubectl {' '.join(arguments)}: did not finish within {timeout:g} s") from None
    if done.returncode != 0:
        raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.decode().strip()}")
    return done.stdout.decode()


def objects(namespace: str, kind: str, *arguments: str) -> list[dict[str, Any]]:
    """Objects of a kind, as dicts."""
    found = json.loads(kubectl("-n", namespace, "get", kind, "-o", "json", *arguments))
    return list(found["items"]) if "items" in found else [found]


def overlay() -> str:
    """The single-node overlay for the cluster's version."""
    version = json.loads(kubectl("version", "-o", "json", timeout=30))["serverVersion"]
    minor = int(re.sub(r"\D", "", version["minor"]))
    return "old-cluster" if minor < OLD else "local"


def deploy(folder: Path, timeout: float = 600) -> None:
    """Applies a kustomization and waits until its pods are ready."""
    text = kubectl("kustomize", str(folder))
    # Apply the definition of Run first: objects of that kind can be applied only after the API server has it.
    kubectl("apply", "-k", str(ROOT / "k8s/crds"))
    kubectl("wait", "--for=condition=established", "crd/runs.accord.dev", "--timeout=60s")
    kubectl("apply", "-f", "-", text=text)
    (namespace,) = set(re.findall(r"(?m)^  namespace: (\S+)$", text))
    for kind in ("deployment", "statefulset"):
        for one in objects(namespace, kind):
            if one["spec"]["replicas"]:
                name = f"{kind}/{one['metadata']['name']}"
                kubectl("-n", namespace, "rollout", "status", name, f"--timeout={timeout:.0f}s", timeout=timeout + 30)


def copy_in(namespace: str, files: Mapping[str, Path], image: str) -> None:
    """Copies files and folders to the data volume, each to its path below /data, through a temporary pod."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for target, source in files.items():
            archive.add(source.resolve(), target)
    kubectl("apply", "-f", "-", text=json.dumps(loader(namespace, image)))
    kubectl("-n", namespace, "wait", "--for=condition=ready", f"pod/{LOADER}", "--timeout=300s", timeout=330)
    try:
        unpack = "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/data')"
        command = ("exec", "-i", LOADER, "--", "python", "-c", unpack)
        kubectl("-n", namespace, *command, data=packed.getvalue(), timeout=600)
    finally:
        kubectl("-n", namespace, "delete", "pod", LOADER, "--grace-period=0", "--wait=false")


def loader(namespace: str, image: str) -> dict[str, Any]:
    """An idle pod with the data volume."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": LOADER, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001},
            "containers": [
                {
                    "name": LOADER,
                    "image": image,
                    "command": ["python", "-c", "import time; time.sleep(3600)"],
                    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }
            ],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    }


@contextmanager
def forwarded(namespace: str, service: str, port: int) -> Iterator[str]:
    """The local address of a service in the cluster, during the block."""
    command = ["kubectl", "-n", namespace, "port-forward", f"service/{service}", f":{port}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        said = ""
        deadline = time.monotonic() + 30
        while (found := FORWARDED.search(said)) is None:
            line = process.stdout.readline()
            if not line or time.monotonic() > deadline:
                raise KubectlError(f"port-forward to {service}: {said.strip() or 'no output'}")
            said += line
        yield f"127.0.0.1:{found[1]}"
    finally:
        process.terminate()
        process.wait(10)
