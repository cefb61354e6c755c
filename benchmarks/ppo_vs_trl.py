"""Accord's trainer against TRL on the same work: CPU-seconds and peak memory per step, and the reward curves of both.

    python benchmarks/ppo_vs_trl.py [--only ppo grpo rm curve soak] [--steps N] [--json FILE]

The sides run one after the other, never together, as children of this process: Accord as its services with the SDK
(`accord_side.py`), TRL 1.12.0 (PPO, its last release with a PPOTrainer) and 1.16.0 (GRPO, RewardTrainer) in
environments that are created on first use below .accord/benchmark-envs (`trl_side.py`). Model, prompts in their order,
samples, lengths, epochs, minibatches, learning rate, KL coefficient, clipping, Adam's epsilon and temperature are equal
(`workload.py`), and so is the score: VADER's sentiment of the answer.

The differences are those that a user of each would have:

- TRL's PPO trains a separate value model; Accord's default is a value head on the policy's trunk.
- Accord computes a prompt once for all its samples and computes logits only for the states before response tokens.
- TRL runs in one process. Of Accord's three, all CPU time counts, and gRPC, digests and published weights with it.
- TRL's gradient checkpointing, on by default, is off: the comparison is in CPU-seconds.
- TRL runs in float32 (its PPO's examples) and in `bf16`: autocast over float32 weights, as Accord's bfloat16 is.

Parts: `ppo` and `grpo` give costs, of the steps after `--warm`; `rm` the cost of reward-model steps; `curve` the score
over more but cheaper PPO steps (fewer tokens and epochs, as printed); `soak` many
steps of a tiny model through Accord only: memory and time must stay flat. CPU-seconds barely depend on other load
on the machine; wall-clock seconds do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
from accord_side import Setup, run_policy, run_rm
from costs import Peak, Side, StepCost, cost_table, curve_table, ratios
from models import POLICY, present
from rich.console import Console
from soak import Look, as_dict, make_tiny, run_soak, soak_table
from trl_envs import PPO_RELEASE, RELEASE, environment
from workload import Workload

PARTS = ("ppo", "grpo", "rm", "curve", "soak")
HERE = Path(__file__).resolve().parent
# One thread and no spinning while waiting, so that CPU-seconds measure work.
ENVIRON = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "HF_HUB_OFFLINE": "1"}
ENVIRON |= {"TOKENIZERS_PARALLELISM": "false"}


def workloads(args: argparse.Namespace) -> dict[str, Workload]:
    """The workload of each part."""
    ppo = Workload(
        "ppo", str(args.model.resolve()), str(args.prompts.resolve()), args.steps, args.warm, args.samples, args.group,
        args.tokens, args.epochs, args.minibatch, seed=args.seed,
    )  # fmt: skip
    tiny = {"samples": 8, "group": 4, "tokens": 8, "epochs": 1, "minibatch": 8}
    return {
        "ppo": ppo,
        "grpo": replace(ppo, part="grpo", epochs=1),
        "rm": replace(ppo, part="rm", pairs_a_step=args.pairs_a_step, pairs=str(args.pairs or "")),
        "curve": replace(
            ppo, part="curve", steps=args.curve_steps, warm=0, tokens=args.curve_tokens, epochs=args.curve_epochs
        ),
        "soak": replace(ppo, part="soak", steps=args.soak_steps, warm=0, **tiny),
    }


def run_trl(workload: Workload, release: str, dtype: str, state: Path) -> Side:
    """TRL in its environment: its steps and its peak memory."""
    side = Side(f"TRL {release} {dtype}", workload.warm)
    out = state / f"trl-{workload.part}-{dtype}.jsonl"
    command = [str(environment(release)), str(HERE / "trl_side.py"), "--workload", workload.to_json()]
    process = subprocess.Popen([*command, "--dtype", dtype, "--out", str(out)], stdout=subprocess.DEVNULL)
    try:
        with Peak(lambda: [psutil.Process(process.pid)]) as peak:
            while process.poll() is None:
                try:
                    process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    _read_steps(out, side)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    _read_steps(out, side)
    if process.returncode or len(side.steps) < workload.rounds:
        raise SystemExit(f"TRL {release} ended with {process.returncode} after {len(side.steps)} steps; see above")
    side.peak_bytes = peak.bytes
    return side


def _read_steps(out: Path, side: Side) -> None:
    """Reads the new steps and logs them."""
    lines = out.read_text().splitlines() if out.is_file() else []
    for line in lines[len(side.steps) :]:
        side.steps.append(StepCost(**json.loads(line)))
        said(side)


def said(side: Side) -> None:
    """One line for the newest step."""
    step = side.steps[-1]
    print(
        f"{side.name}: step {len(side.steps)}: {step.total:.1f} CPU-s (generation {step.generation:.1f}, scoring "
        f"{step.scoring:.1f}, update {step.update:.1f}), {step.seconds:.1f} s, score {step.score:.3f}",
        file=sys.stderr,
    )


def compare(workload: Workload, args: argparse.Namespace, state: Path) -> tuple[Side, list[Side]]:
    """Both sides of one part, one after the other."""
    release = PPO_RELEASE if workload.part in ("ppo", "curve") else RELEASE
    dtypes = args.trl_dtypes if workload.part != "curve" else args.trl_dtypes[-1:]
    peers = [run_trl(workload, release, dtype, state) for dtype in dtypes]
    run = run_rm if workload.part == "rm" else run_policy
    setup = Setup(args.dtype, args.compile, args.undo, args.micro_batch_tokens)
    return asyncio.run(run(workload, state / f"accord-{workload.part}", setup, said)), peers


def measured(part: str, workload: Workload, args: argparse.Namespace, state: Path, console: Console) -> dict[str, Any]:
    """Runs a part, prints its table and returns its figures."""
    console.print(f"[bold]{part}[/bold]: {workload.to_json()}", soft_wrap=True)
    if part == "soak":
        workload = replace(workload, model=str(make_tiny(state / "tiny", args.model)))

        def report(index: int, look: Look) -> None:
            if (index + 1) % 50 == 0:
                sizes = ", ".join(f"{name} {size >> 20} MiB" for name, size in look.rss.items())
                print(f"soak: step {index + 1}: {look.seconds:.2f} s, {sizes}", file=sys.stderr)

        looks = asyncio.run(run_soak(workload, state / "accord-soak", report))
        console.print(soak_table(looks))
        return {"workload": asdict(workload), **as_dict(looks)}
    accord, peers = compare(workload, args, state)
    console.print(cost_table(part, accord, peers))
    if part == "curve":
        console.print(curve_table(part, [accord, *peers]))
    return {
        "workload": asdict(workload),
        "accord": accord.as_dict(),
        "peers": {peer.name: {**peer.as_dict(), "times_accord": ratios(accord, peer)} for peer in peers},
    }


def machine() -> dict[str, Any]:
    """A general description of the machine."""
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "threads": os.environ["OMP_NUM_THREADS"],
        "load": os.getloadavg()[0],
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="the parts to run, in this order")
    parser.add_argument("--model", type=Path, default=POLICY, help="folder of the model that both sides start from")
    parser.add_argument("--prompts", type=Path, default=HERE.parent / "examples/prompts.jsonl")
    parser.add_argument("--steps", type=int, default=2, help="measured steps of ppo, grpo and rm")
    parser.add_argument("--warm", type=int, default=1, help="warm-up steps before them")
    parser.add_argument("--samples", type=int, default=32, help="samples per step")
    parser.add_argument("--group", type=int, default=4, help="samples per prompt")
    parser.add_argument("--tokens", type=int, default=32, help="maximum of new tokens per sample")
    parser.add_argument("--epochs", type=int, default=4, help="passes over the samples of a step; always one for grpo")
    parser.add_argument("--minibatch", type=int, default=16, help="samples per optimizer update")
    parser.add_argument("--pairs", type=Path, help="JSONL of prompt, chosen, rejected for rm; default: synthetic pairs")
    parser.add_argument("--pairs-a-step", type=int, default=16)
    parser.add_argument("--curve-steps", type=int, default=20)
    parser.add_argument("--curve-tokens", type=int, default=16)
    parser.add_argument("--curve-epochs", type=int, default=2)
    parser.add_argument("--soak-steps", type=int, default=1000)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="compute type of Accord")
    parser.add_argument("--compile", action="store_true", help="Accord's blocks are compiled, in the warm steps")
    parser.add_argument("--micro-batch-tokens", type=int, default=0, help="the trainer's option; 0: its default")
    parser.add_argument("--undo", choices=("memory", "disk"), default="memory", help="the trainer's setting")
    parser.add_argument(
        "--trl-dtypes", nargs="*", choices=("float32", "bfloat16"), default=["float32", "bfloat16"],
        help="compute types of TRL, one after the other (curve: only the last); none: only Accord",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, help="of each process on both sides")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here, after each part")
    return parser.parse_args()


def main() -> None:
    """Runs the parts, prints tables, writes JSON when asked."""
    args = arguments()
    os.environ |= {**ENVIRON, "OMP_NUM_THREADS": str(args.threads)}
    args.model = present(args.model)
    console = Console()
    figures: dict[str, Any] = {"machine": machine(), "parts": {}}
    with tempfile.TemporaryDirectory(prefix="ppo_vs_trl-") as state:
        for part in args.only:
            figures["parts"][part] = measured(part, workloads(args)[part], args, Path(state), console)
            if args.json:
                args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
