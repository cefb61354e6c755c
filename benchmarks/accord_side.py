"""Accord's side of `ppo_vs_trl.py`: the CPU-seconds of three services and the SDK, as a user runs them.

Generation is `Generate` and the preceding weight update. Scoring is the work of the reward service and the cost of
`Evaluate` for the trainer on the same batch (old policy, values, reference: the same work with which `Step` begins).
Update is the rest of `Step`, with publishing and digests. The extra Evaluate is subtracted from the total.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import psutil
from costs import Peak, Side, StepCost, cpu_seconds
from training import folder_ref
from workload import Workload

import accord
from accord.errors import FailedPrecondition
from accord.reward import v1 as reward_v1
from accord.rollout import v1 as rollout_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1

LONG = 3600.0
SERVICES = ("rollout", "reward", "trainer")


@dataclass(frozen=True)
class Services:
    """Running services and a client of them."""

    client: accord.Client
    processes: dict[str, psutil.Process]

    def cpu(self) -> float:
        """CPU-seconds of the services and of this process's event loop so far."""
        return cpu_seconds(list(self.processes.values())) + time.thread_time()


@asynccontextmanager
async def services(
    state: Path, names: Sequence[str] = SERVICES, dtype: str = "auto", undo: str = "memory"
) -> AsyncIterator[Services]:
    """Starts services as separate processes, with all state below `state`, and ends them."""
    started: dict[str, asyncio.subprocess.Process] = {}
    try:
        for name in names:
            command = [sys.executable, "-m", f"accord_{name}", "--state-dir", str(state), "--log-level", "warning"]
            command += {"rollout": ["--dtype", dtype], "trainer": ["--undo", undo]}.get(name, [])
            started[name] = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        addresses = {}
        for name, process in started.items():
            assert process.stdout is not None
            line = (await process.stdout.readline()).decode()
            if not line:
                raise SystemExit(f"the {name} service did not start; its message is above")
            addresses[name] = line.split()[-1]
        async with accord.Client(**addresses) as client:
            yield Services(client, {name: psutil.Process(process.pid) for name, process in started.items()})
    finally:
        for process in started.values():
            if process.returncode is None:
                process.terminate()
        for process in started.values():
            await process.wait()


class Loop:
    """Policy steps of one training: generate, score, learn, publish, activate."""

    def __init__(
        self, up: Services, workload: Workload, algorithm: str, dtype: str, options: dict[str, object]
    ) -> None:
        self._up = up
        self._client = up.client
        self._workload = workload
        self._name = f"{workload.part}-{uuid.uuid4().hex[:8]}"
        self._base = folder_ref(Path(workload.model))
        self._weights = self._base
        self._training = trainer_v1.Training(
            training_id=self._name,
            algorithm=algorithm,
            init=self._base,
            seed=workload.seed,
            checkpoint_every=1_000_000,  # TRL saves nothing either
            compute_dtype=dtype,
        )
        self._training.options.update(options)
        self.metrics: dict[str, float] = {}

    async def open(self) -> None:
        """Loads the models. Loading is not counted on either side."""
        await self._client.trainer.create_training(self._training, timeout=LONG)
        await self._client.rollout.update_weights(self._base, timeout=LONG)

    async def step(self, index: int, prompts: Sequence[str], *, split: bool) -> StepCost:
        """One step. `split` measures the share of scoring with an additional Evaluate, whose cost is left out."""
        started, marks = time.monotonic(), [self._up.cpu()]
        samples = await self._generate(index, prompts)
        marks.append(self._up.cpu())
        scored = await self._score(samples)
        put = await self._client.trainer.put_experience(self._name, samples=scored)
        marks.append(self._up.cpu())
        seconds = time.monotonic() - started
        if split:
            await self._client.trainer.evaluate(self._name, put.batch_id, timeout=LONG)
        marks.append(self._up.cpu())
        started = time.monotonic()
        result = await self._client.trainer.step(
            self._name, put.batch_id, parent_version=index, publish=True, timeout=LONG
        )
        stepped = self._up.cpu()
        await self._client.rollout.update_weights(result.weights, timeout=LONG)
        self._forget(self._weights)
        self._weights, self.metrics = result.weights, dict(result.metrics)
        evaluated = marks[3] - marks[2] if split else 0.0
        return StepCost(
            generation=marks[1] - marks[0] + self._up.cpu() - stepped,
            scoring=marks[2] - marks[1] + evaluated,
            update=stepped - marks[3] - evaluated,
            seconds=seconds + time.monotonic() - started,
            score=statistics.fmean(one.score for one in scored),
        )

    async def _generate(self, index: int, prompts: Sequence[str]) -> list[types_v1.Sample]:
        asked = [
            rollout_v1.Prompt(conversation=accord.conversation(p), seed=self._workload.seed * 10**6 + index * 1000 + i)
            for i, p in enumerate(prompts)
        ]
        sampling = types_v1.SamplingParams(max_new_tokens=self._workload.tokens, temperature=1.0)
        samples = []
        async for response in self._client.rollout.generate(
            asked, n=self._workload.group, sampling=sampling, request_id=f"{self._name}-{index}", timeout=LONG
        ):
            if response.HasField("failure"):
                raise FailedPrecondition(f"a sample failed: {response.failure.failure.message}")
            samples.append(response.sample)
        return sorted(samples, key=lambda sample: sample.index)

    async def _score(self, samples: Sequence[types_v1.Sample]) -> list[trainer_v1.ScoredSample]:
        items = [
            reward_v1.ScoreItem(
                prompt=one.prompt, response=one.text, truncated=one.finish_reason == types_v1.FINISH_REASON_LENGTH
            )
            for one in samples
        ]
        results = await self._client.reward.score(items, scorers=[reward_v1.ScorerSpec(name="sentiment")])
        if failed := [result.failure.message for result in results if result.HasField("failure")]:
            raise FailedPrecondition(f"{len(failed)} samples were not scored: {failed[0]}")
        return [
            trainer_v1.ScoredSample(sample=one, score=result.score.value)
            for one, result in zip(samples, results, strict=True)
        ]

    def _forget(self, weights: types_v1.WeightsRef) -> None:
        """Frees the disk space of weights that are no longer active."""
        if weights.uri != self._base.uri:
            shutil.rmtree(Path(urlparse(weights.uri).path), ignore_errors=True)


@dataclass(frozen=True)
class Setup:
    """Accord's settings beyond the workload; everything else has its default."""

    dtype: str
    compile: bool
    undo: str
    # 0: the trainer's default.
    micro_batch_tokens: int = 0

    @property
    def name(self) -> str:
        """The name in tables."""
        return " ".join(["Accord", self.dtype, *(["compiled"] if self.compile else [])])

    @property
    def options(self) -> dict[str, object]:
        """Options of every algorithm."""
        given: dict[str, object] = {"compile": self.compile}
        return {**given, "micro_batch_tokens": self.micro_batch_tokens} if self.micro_batch_tokens else given


def policy_options(workload: Workload, setup: Setup) -> dict[str, object]:
    """Options of the algorithm."""
    options: dict[str, object] = {
        **setup.options,
        "epochs": workload.epochs,
        "minibatch_size": workload.minibatch,
        "learning_rate": workload.learning_rate,
    }
    return options if workload.part == "grpo" else {**options, "kl_coefficient": workload.kl_coefficient}


async def run_policy(workload: Workload, state: Path, setup: Setup, report: Callable[[Side], None]) -> Side:
    """PPO or GRPO steps."""
    side = Side(setup.name, workload.warm)
    algorithm = "grpo" if workload.part == "grpo" else "ppo"
    async with services(state, dtype=setup.dtype, undo=setup.undo) as up:
        loop = Loop(up, workload, algorithm, setup.dtype, policy_options(workload, setup))
        with Peak(lambda: list(up.processes.values())) as peak, Peak(lambda: [up.processes["trainer"]]) as trainers:
            await loop.open()
            for index, prompts in enumerate(workload.step_prompts()):
                side.steps.append(await loop.step(index, prompts, split=workload.part != "curve"))
                report(side)
        side.peak_bytes, side.trainer_peak_bytes = peak.bytes, trainers.bytes
    return side


async def run_rm(workload: Workload, state: Path, setup: Setup, report: Callable[[Side], None]) -> Side:
    """Reward-model steps: only the trainer is needed."""
    side = Side(setup.name, workload.warm)
    async with services(state, ["trainer"], undo=setup.undo) as up:
        name = f"rm-{uuid.uuid4().hex[:8]}"
        training = trainer_v1.Training(
            training_id=name,
            algorithm="reward_model",
            init=folder_ref(Path(workload.model)),
            seed=workload.seed,
            checkpoint_every=1_000_000,
            compute_dtype=setup.dtype,
        )
        training.options.update({"learning_rate": workload.learning_rate, **setup.options})
        with Peak(lambda: list(up.processes.values())) as peak:
            await up.client.trainer.create_training(training, timeout=LONG)
            for index, pairs in enumerate(workload.step_pairs()):
                examples = [
                    trainer_v1.PreferenceExample(
                        prompt=accord.conversation(pair["prompt"]),
                        responses=[pair["chosen"], pair["rejected"]],
                        ranks=trainer_v1.Ranks(values=[0, 1]),
                    )
                    for pair in pairs
                ]
                started, used = time.monotonic(), up.cpu()
                put = await up.client.trainer.put_experience(name, preferences=examples)
                result = await up.client.trainer.step(name, put.batch_id, parent_version=index, timeout=LONG)
                side.steps.append(
                    StepCost(0.0, 0.0, up.cpu() - used, time.monotonic() - started, result.metrics["accuracy"])
                )
                report(side)
        side.peak_bytes = peak.bytes
    return side


def threads() -> str:
    """The number of threads of each side, from the environment."""
    return os.environ.get("OMP_NUM_THREADS", "")
