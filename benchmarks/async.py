"""The gain and the cost of simultaneous generation and training: runs with `max_staleness` 0 and above, all else equal.

    make model
    python benchmarks/async.py [--steps 16] [--staleness 0 1 2] [--json FILE]

One controller runs the whole loop once for each staleness, with the same seeds, prompts, reward model and number of
samples. Engine and trainer compute with one thread each (`--threads`), so that each has its own core on a machine with
two. For the steps of the policy stage except the first, it shows the seconds between steps, compared with those of
generation and of training in the same run: the target is 1.1 times the larger of the two. It also shows the reward
curve and the held-out score of each run. `--engine-waits SECONDS` simulates an engine on a separate machine: it
generates with the model as usual, and then waits until SECONDS have passed. A quick look: `--steps 3 --tokens 8
--prompts 4`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

import accord
from accord.controller import v1 as controller_v1
from accord_rollout.engine import Completion, Engine, Failed, Job, Sampling

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / ".accord" / "models"
LONG = 4 * 3600.0
AIM = 1.1


@dataclass(frozen=True)
class Step:
    """One step of the policy stage. `at`: when it was recorded, seconds."""

    at: float
    generate: float
    train: float
    wait: float
    score: float
    reward: float
    staleness: float
    mismatch_kl: float


@dataclass(frozen=True)
class Side:
    """One run. Seconds are means over the steps from the second to the last."""

    max_staleness: int
    steps: list[Step]
    heldout_base: float
    heldout: float
    kl_nats: float

    @property
    def seconds(self) -> float:
        """Seconds from one step to the next."""
        return (self.steps[-1].at - self.steps[0].at) / (len(self.steps) - 1)

    @property
    def generate(self) -> float:
        """Seconds of generation per step."""
        return statistics.fmean(step.generate for step in self.steps[1:])

    @property
    def train(self) -> float:
        """Seconds of training per step."""
        return statistics.fmean(step.train for step in self.steps[1:])

    @property
    def ratio(self) -> float:
        """Seconds per step relative to the larger of generation and training."""
        return self.seconds / max(self.generate, self.train)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        figures = {name: getattr(self, name) for name in ("seconds", "generate", "train", "ratio")}
        return {**asdict(self), **figures}


class Waiting:
    """An engine that takes a fixed time for each request, independent of load: it generates, then waits."""

    def __init__(self, engine: Engine, seconds: float) -> None:
        self._engine = engine
        self._seconds = seconds

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    async def generate(self, jobs: Sequence[Job], sampling: Sampling) -> AsyncGenerator[Completion | Failed, None]:
        """Returns all samples when the time has passed."""
        over = time.monotonic() + self._seconds
        drawn = [one async for one in self._engine.generate(jobs, sampling)]
        await asyncio.sleep(max(0.0, over - time.monotonic()))
        for one in drawn:
            yield one


@asynccontextmanager
async def waiting_engine(state: Path, seconds: float, threads: int) -> AsyncIterator[str]:
    """The address of a rollout service on a Waiting engine, in this process."""
    from accord_rollout.engines.transformers.engine import TransformersEngine
    from accord_rollout.handler import RolloutHandler
    from accord_rollout.service import RolloutService
    from accord_rollout.settings import RolloutSettings
    from accord_runtime.serving.server import serving

    settings = RolloutSettings(state_dir=state / "rollout", threads=threads)
    engine: Engine = Waiting(TransformersEngine(settings), seconds)  # type: ignore[assignment]
    handler = RolloutHandler(engine, engine_name="transformers", cache=settings.state_dir / "cache")
    async with serving(RolloutService(handler), settings) as address:
        yield address


@asynccontextmanager
async def controller(state: Path, threads: int, rollout: str) -> AsyncIterator[accord.Client]:
    """A controller and the services that it starts; uses the rollout service at `rollout`, if given."""
    command = [sys.executable, "-m", "accord_controller", "--state-dir", str(state), "--log-level", "warning"]
    command += ["--rollout-threads", str(threads), "--trainer-threads", str(threads), "--reward-threads", "1"]
    command += ["--rollout-address", rollout] if rollout else []
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "HF_HUB_OFFLINE": "1"}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env={**os.environ, **quiet}
    )
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        if not line:
            raise SystemExit("the controller did not start; its message is above")
        async with accord.Client(controller=line.split()[-1]) as client:
            yield client
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def make_run(arguments: argparse.Namespace, staleness: int) -> controller_v1.Run:
    """The demo's loop, one iteration, not deterministic."""
    run = controller_v1.Run(run_id=f"staleness-{staleness}")
    spec = run.spec
    spec.model, spec.seed, spec.iterations = str(arguments.model.absolute()), arguments.seed, 1
    spec.prompts.files.append(str(ROOT / "examples" / "prompts.jsonl"))
    spec.rollout.max_new_tokens, spec.rollout.temperature = arguments.tokens, 0.8
    spec.rollout.system_prompt = "Answer in one sentence."
    spec.feedback.simulated.scorers.add(name="sentiment")
    spec.feedback.prompts_per_iteration, spec.feedback.completions_per_prompt = arguments.feedback, 4
    spec.reward_model.model, spec.reward_model.batch_size = str(arguments.reward_model.absolute()), 8
    spec.reward_model.epochs = 2
    spec.reward_model.options.update({"learning_rate": 1e-4, "weight_decay": 0.01, "warmup_updates": 4})
    policy = spec.policy
    policy.steps, policy.prompts_per_step, policy.samples_per_prompt = arguments.steps, arguments.prompts, 4
    policy.max_staleness, policy.checkpoint_every = staleness, arguments.steps
    policy.options.update(
        {"learning_rate": 1e-4, "warmup_updates": 8, "kl_coefficient": 0.1, "epochs": arguments.epochs}
    )
    spec.evaluate.prompts, spec.evaluate.max_kl = arguments.heldout, 1000.0
    spec.evaluate.min_gain = -1000.0
    return run


async def take(client: accord.Client, run: controller_v1.Run, console: Console) -> Side:
    """One run to its end."""
    await client.runs.create(run)
    steps: list[Step] = []
    async for event in client.runs.watch(run.run_id, timeout=LONG):
        if event.kind == "step" and event.stage == controller_v1.STAGE_POLICY:
            found = event.metrics
            steps.append(
                Step(
                    event.time.ToNanoseconds() / 1e9,
                    found["generate_seconds"],
                    found["step_seconds"],
                    found.get("wait_seconds", 0.0),
                    found["score"],
                    found["reward"],
                    found["staleness"],
                    found["mismatch_kl"],
                )
            )
            console.print(f"{run.run_id}: step {event.step}, score {found['score']:+.3f}", highlight=False)
    done = await client.runs.get(run.run_id)
    if done.status.state != controller_v1.RUN_STATE_SUCCEEDED:
        raise SystemExit(f"{run.run_id}: {done.status.message}")
    base, last = done.status.iterations[0], done.status.iterations[-1]
    return Side(run.spec.policy.max_staleness, steps, base.heldout_score, last.heldout_score, last.kl_nats)


async def measure(arguments: argparse.Namespace, console: Console) -> list[Side]:
    """All runs, one after the other, on the same services."""
    with tempfile.TemporaryDirectory(prefix="accord-async-") as folder:
        state = Path(folder)
        waits = arguments.engine_waits
        engine = waiting_engine(state, waits, arguments.threads) if waits else nullcontext("")
        async with engine as address, controller(state, arguments.threads, address) as client:
            return [await take(client, make_run(arguments, one), console) for one in arguments.staleness]


def show(sides: Sequence[Side], console: Console) -> None:
    """Tables for people: time, and the curves."""
    times = Table(
        "max_staleness", "seconds a step", "generation", "training", "the larger", "ratio", "waited", "staleness",
        "mismatch KL", "held-out score", "KL, nats",
        title=f"the aim: a ratio of {AIM}",
    )  # fmt: skip
    for side in sides:
        times.add_row(
            str(side.max_staleness),
            f"{side.seconds:.2f}",
            f"{side.generate:.2f}",
            f"{side.train:.2f}",
            f"{max(side.generate, side.train):.2f}",
            f"{side.ratio:.2f}",
            f"{statistics.fmean(step.wait for step in side.steps[1:]):.2f}",
            f"{statistics.fmean(step.staleness for step in side.steps):.2f}",
            f"{statistics.fmean(step.mismatch_kl for step in side.steps):.5f}",
            f"{side.heldout_base:.3f} -> {side.heldout:.3f}",
            f"{side.kl_nats:.1f}",
        )
    console.print(times)
    curves = Table("steps", *(f"max_staleness {side.max_staleness}" for side in sides), title="mean score of samples")
    total = len(sides[0].steps)
    width = max(1, total // 8)
    for start in range(0, total, width):
        end = min(start + width, total)
        scores = [statistics.fmean(step.score for step in side.steps[start:end]) for side in sides]
        curves.add_row(f"{start + 1} to {end}", *(f"{score:+.3f}" for score in scores))
    console.print(curves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODELS / "smollm2-135m-instruct", help="the policy")
    parser.add_argument(
        "--reward-model", type=Path, default=MODELS / "all-minilm-l6-v2", help="the initial model of the reward model"
    )
    parser.add_argument("--staleness", type=int, nargs="+", default=[0, 1, 2], help="a run for each max_staleness")
    parser.add_argument("--steps", type=int, default=16, help="at least 2")
    parser.add_argument("--prompts", type=int, default=8, help="prompts per step, 4 samples each")
    parser.add_argument("--tokens", type=int, default=24, help="maximum of new tokens per sample")
    parser.add_argument("--epochs", type=int, default=1, help="passes over a step's samples")
    parser.add_argument("--feedback", type=int, default=64, help="prompts that the simulated annotators see")
    parser.add_argument("--heldout", type=int, default=32, help="held-out prompts")
    parser.add_argument("--threads", type=int, default=1, help="of the engine, and of the trainer")
    parser.add_argument("--engine-waits", type=float, default=0.0, help="seconds per request of a simulated engine")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures to this file as JSON")
    arguments = parser.parse_args()
    if arguments.steps < 2:
        parser.error("--steps must be at least 2, because the times leave out the first step")
    console = Console()
    sides = asyncio.run(measure(arguments, console))
    show(sides, console)
    if arguments.json:
        arguments.json.write_text(json.dumps([side.as_dict() for side in sides], indent=2) + "\n")


if __name__ == "__main__":
    main()
