"""A controller process with its own services, and runs of the whole loop that are small enough for a test."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

import accord
from accord import discovery
from accord.controller import v1 as controller_v1

START_SECONDS = 60.0
QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "HF_HUB_OFFLINE": "1"}
TOPICS = ("the sea", "a dog", "the moon", "bread", "a friend", "music", "rain", "a train", "the sun", "a book")
QUESTIONS = ("What is", "Write about", "Tell me of", "Who likes", "Why is there", "Where is", "When comes")


def write_prompts(path: Path) -> Path:
    """70 prompts as JSONL."""
    lines = [json.dumps({"prompt": f"{question} {topic}?"}) for question in QUESTIONS for topic in TOPICS]
    path.write_text("\n".join(lines) + "\n")
    return path


def tiny_run(run_id: str, model: Path, prompts: Path, **changes: object) -> controller_v1.Run:
    """Two iterations of a few steps; annotators like long answers, which a tiny random model can learn to give."""
    run = controller_v1.Run(run_id=run_id)
    spec = run.spec
    spec.model, spec.seed, spec.iterations, spec.deterministic = str(model), 7, 2, True
    spec.prompts.files.append(str(prompts))
    spec.feedback.simulated.scorers.add(name="length").options.update({"target": 60})
    spec.feedback.simulated.noise = 0.05
    spec.feedback.prompts_per_iteration = 24
    spec.reward_model.batch_size = 8
    spec.reward_model.options.update({"learning_rate": 1e-3, "warmup_updates": 0})
    spec.policy.steps, spec.policy.prompts_per_step, spec.policy.samples_per_prompt = 5, 4, 4
    spec.policy.checkpoint_every = 2
    spec.policy.options.update({"learning_rate": 1e-3, "warmup_updates": 1})
    spec.evaluate.prompts, spec.evaluate.max_kl = 8, 1000.0
    spec.rollout.max_new_tokens = 12
    for path, value in changes.items():
        *parents, last = path.split("__")
        message: object = spec
        for parent in parents:
            message = getattr(message, parent)
        setattr(message, last, value)
    return run


class Controller:
    """`python -m accord_controller` on a state folder; it starts the services that it needs."""

    def __init__(self, state_dir: Path, *flags: str, environment: Mapping[str, str] | None = None) -> None:
        self.state_dir = state_dir
        self._flags = flags
        self._environment = {**QUIET, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> str:
        """Starts it and returns its address."""
        self._process = self._spawn()
        deadline = time.monotonic() + START_SECONDS
        while True:
            record = discovery.read(self.state_dir, "controller")
            if record is not None and record.pid == self._process.pid:
                return record.address
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            await asyncio.sleep(0.05)

    def _spawn(self) -> subprocess.Popen[bytes]:
        self.state_dir.mkdir(parents=True, exist_ok=True)
        with (self.state_dir / "controller.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "accord_controller", "--state-dir", str(self.state_dir), *self._flags],
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 60
        while self._process.poll() is None:
            assert time.monotonic() < deadline, self.log()
            await asyncio.sleep(0.05)
        return self._process.returncode

    def kill_service(self, name: str, replica: str = "") -> int:
        """SIGKILL to a service, or to one of its replicas by name; returns its pid."""
        record = discovery.read(self.state_dir / "rollouts" / replica if replica else self.state_dir, name)
        assert record is not None, f"{name} does not run"
        psutil.Process(record.pid).kill()
        return record.pid

    def log(self) -> str:
        """What it wrote."""
        return (self.state_dir / "controller.log").read_text()

    def end_everything(self) -> None:
        """SIGKILL to it and to every service that it started, for the end of a test."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        # Not only those that can be found: one may just have begun to start when its controller was killed.
        for process in psutil.process_iter(["cmdline"]):
            state_dir = Path(_after("--state-dir", process.info["cmdline"] or []))
            if state_dir == self.state_dir or self.state_dir in state_dir.parents:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def _after(flag: str, words: list[str]) -> str:
    return next((value for name, value in itertools.pairwise(words) if name == flag), "")


@asynccontextmanager
async def controller(state_dir: Path, *flags: str) -> AsyncIterator[tuple[Controller, accord.Client]]:
    """A controller and its client; everything left of it is killed at the end."""
    process = Controller(state_dir, *flags)
    try:
        address = await process.start()
        async with accord.Client(controller=address) as client:
            yield process, client
    finally:
        process.end_everything()


async def finish(client: accord.Client, run_id: str, seconds: float = 100.0) -> controller_v1.Run:
    """Waits until a run is no longer active, and returns it."""
    async for _ in client.runs.watch(run_id, timeout=seconds):
        continue
    return await client.runs.get(run_id)


async def wait_for(
    client: accord.Client, run_id: str, wanted: Callable[[controller_v1.RunEvent], bool], seconds: float = 90.0
) -> controller_v1.RunEvent:
    """The first event that is wanted."""
    async for event in client.runs.watch(run_id, timeout=seconds):
        if wanted(event):
            return event
    status = (await client.runs.get(run_id)).status
    raise AssertionError(f"the run ended without that event: {status.message}")
