"""Run the demo on a Kubernetes cluster: `make k8s-demo KUBECONFIG=...`. The nodes must be able to pull the images.

    python scripts/k8s_demo.py            deploys k8s/overlays/local, applies examples/demo.yaml, prints its table
    python scripts/k8s_demo.py --run my.yaml --data my-model=/data/models/mine

A Run's models and prompts are on the data volume, /data; the script copies them there first. Ctrl-C leaves the run
active; run the same command to follow it again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

import accord
import kube
from accord.cli.render.report_table import report_table
from accord.controller import v1 as controller_v1
from accord.report.report import build_report

DEMO = kube.ROOT / "examples/demo.yaml"
MODELS = (".accord/models/smollm2-135m-instruct", ".accord/models/all-minilm-l6-v2")
POLL_SECONDS = 3.0
COLUMNS = ("state", "iteration", "stage", "progress", "reward", "kl")


def main() -> int:
    """Returns 0 only if the run succeeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--overlay", type=Path, help="the kustomization to apply; default: k8s/overlays' for one node")
    parser.add_argument("--run", type=Path, default=DEMO, help="the Run")
    parser.add_argument("--namespace", default="accord", help="the overlay's namespace")
    parser.add_argument(
        "--image", default="accord/trainer:0.1.0", help="any Accord image; the script copies data with it"
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="FILE=PATH",
        help="a file or folder, and its path on the data volume",
    )
    asked = parser.parse_args()
    try:
        return demo(asked)
    except kube.KubectlError as error:
        print(f"k8s-demo: {error}", file=sys.stderr)
        return 1


def demo(asked: argparse.Namespace) -> int:
    """Deploys the overlay, copies the data, applies the Run, waits for it, and prints the result."""
    folder = asked.overlay or kube.ROOT / "k8s/overlays" / kube.overlay()
    print(f"kubectl apply -k {folder}", flush=True)
    kube.deploy(folder)
    files = {model: kube.ROOT / model for model in MODELS} | {"prompts.jsonl": kube.ROOT / "examples/prompts.jsonl"}
    if asked.data:
        files = {
            path.removeprefix("/data").strip("/"): Path(file)
            for file, _, path in (one.partition("=") for one in asked.data)
        }
    print(f"copying to the data volume: {', '.join(files)}", flush=True)
    kube.copy_in(asked.namespace, files, asked.image)
    print(f"kubectl apply -f {asked.run}", flush=True)
    kube.kubectl("-n", asked.namespace, "apply", "-f", str(asked.run))
    name = yaml.safe_load(asked.run.read_text())["metadata"]["name"]
    state = watch(asked.namespace, name)
    with kube.forwarded(asked.namespace, "controller", 7000) as address:
        asyncio.run(show(address, name))
    return 0 if state == "Succeeded" else 1


def watch(namespace: str, name: str) -> str:
    """Prints a line for each change of the run and each warning until the run ends; returns its last state."""
    shown, told = "", set[str]()
    while True:
        (run,) = kube.objects(namespace, f"run/{name}")
        status: dict[str, Any] = run.get("status", {})
        line = "  ".join(f"{key} {status[key]}" for key in COLUMNS if status.get(key) not in (None, ""))
        if line != shown:
            print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)
            shown = line
        for condition in status.get("conditions", ()):
            text = f"{condition['type']} {condition['status']}: {condition['reason']} {condition.get('message', '')}"
            bad = condition["status"] == ("True" if condition["type"] == "Failed" else "False")
            if bad and condition["type"] != "Complete" and condition.get("message") and text not in told:
                told.add(text)
                print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)
        if status.get("state") in ("Succeeded", "Failed", "Cancelled", "Refused"):
            return str(status["state"])
        time.sleep(POLL_SECONDS)


async def show(address: str, name: str) -> None:
    """Prints the same table as `make demo`, from the controller."""
    async with accord.Client(controller=address) as client:
        run: controller_v1.Run = await client.runs.get(name)
        Console().print(report_table(build_report(run, [event async for event in client.runs.events(name)])))


if __name__ == "__main__":
    sys.exit(main())
