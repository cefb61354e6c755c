"""Every example runs, as its docstring says, against real services and a tiny model."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.judge_peer import peer

import accord
from accord import discovery, formats
from accord_runtime.serving.server import RunningServer, start

pytestmark = pytest.mark.process

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STEP = re.compile(r"^step +(\d+)  score ([+-]\d\.\d+)  kl ([+-]\d+\.\d+)  samples (\d+)  failed (\d+)  ", re.MULTILINE)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder whose rollout, reward and trainer service run, in an event loop of another thread."""
    folder = tmp_path_factory.mktemp("state")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        running = asyncio.run_coroutine_threadsafe(_start_all(folder), loop).result(60)
        yield folder
        for server in running:
            asyncio.run_coroutine_threadsafe(server.stop(1), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start_all(folder: Path) -> list[RunningServer]:
    from accord_reward.service import build as build_reward
    from accord_reward.settings import RewardSettings
    from accord_rollout.service import build as build_rollout
    from accord_rollout.settings import RolloutSettings
    from accord_trainer.service import build as build_trainer
    from accord_trainer.settings import TrainerSettings

    rollout = RolloutSettings(state_dir=folder, dtype="float32", threads=1)
    reward = RewardSettings(state_dir=folder, python_root=EXAMPLES.parent)
    trainer = TrainerSettings(state_dir=folder, threads=1)
    running = {
        "rollout": await start(await build_rollout(rollout), rollout),
        "reward": await start(await build_reward(reward), reward),
        "trainer": await start(await build_trainer(trainer), trainer),
    }
    for name, server in running.items():
        discovery.write(folder, name, server.address)
    return list(running.values())


def run(state: Path, script: str, *arguments: str | Path) -> str:
    """What an example prints, run from the root of the repository as a user does."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *map(str, arguments)],
        cwd=EXAMPLES.parent,
        env={**os.environ, "ACCORD_STATE_DIR": str(state)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def small_loop(state: Path, model: Path, name: str, *more: str | Path) -> list[tuple[str, ...]]:
    sizes = ["--steps", "2", "--prompts-per-step", "2", "--samples-per-prompt", "2", "--max-new-tokens", "6"]
    prompts = EXAMPLES / "prompts.jsonl"
    printed = run(state, "custom_loop.py", "--model", model, "--prompts", prompts, "--name", name, *sizes, *more)
    weights = re.search(r"^weights: file://(.+)$", printed, re.MULTILINE)
    assert weights, printed
    assert (Path(weights[1]) / "model.safetensors").is_file()
    return [match.groups() for match in STEP.finditer(printed)]


def test_custom_loop_trains_publishes_and_repeats(state: Path, tiny_folder: Path) -> None:
    steps = small_loop(state, tiny_folder, "first", "--seed", "3")
    assert [step[0] for step in steps] == ["1", "2"]
    assert [(step[3], step[4]) for step in steps] == [("4", "0")] * 2
    assert abs(float(steps[0][2])) < 0.01, "before the first step the policy is its reference"


def test_ones_own_reward_drives_the_custom_loop(state: Path, tiny_folder: Path) -> None:
    steps = small_loop(state, tiny_folder, "own", "--scorer", "python:./examples/reward.py:score")
    assert len(steps) == 2
    assert all(-1 <= float(step[1]) <= 1 for step in steps)


def test_a_training_that_exists_is_not_trained_over(state: Path, tiny_folder: Path) -> None:
    small_loop(state, tiny_folder, "taken")
    with pytest.raises(AssertionError, match="choose another --name"):
        small_loop(state, tiny_folder, "taken")


def test_ask_prints_answers_and_says_when_nobody_is_there(state: Path, tiny_folder: Path, tmp_path: Path) -> None:
    small_loop(state, tiny_folder, "asked")
    printed = run(state, "ask.py", "What is the best way to learn?", "--answers", "2", "--max-new-tokens", "6")
    assert "transformers engine, weights version 2" in printed
    assert len(re.findall(r"\(\d tokens\)$", printed, re.MULTILINE)) == 2
    with pytest.raises(AssertionError, match="has no address of the rollout service"):
        run(tmp_path, "ask.py", "Anybody?")


def test_a_judge_is_told_by_what_it_says_of_plain_pairs(state: Path, tiny_folder: Path, tmp_path: Path) -> None:
    with peer() as server:  # the longer answer is better, it says
        printed = run(tmp_path, "judge.py", "--url", server.url, "--model", "ruler")
    assert "  4 of 8  right\n  3 of 8  wrong\n  1 of 8  tie" in printed
    assert len(server.seen) == 16
    with peer("first") as server:
        printed = run(tmp_path, "judge.py", "--url", server.url, "--model", "ruler")
    assert "  8 of 8  tie, or the order decided\n" in printed
    # Through the rollout service: this policy is too small to be asked at all, and says so.
    small_loop(state, tiny_folder, "judging")
    with pytest.raises(AssertionError, match=r"the policy did not judge: .* more than the model's 256"):
        run(state, "judge.py")
    with pytest.raises(AssertionError, match="has no address of the rollout service"):
        run(tmp_path, "judge.py")


def test_reward_prefers_a_whole_answer_of_the_right_length() -> None:
    spec = importlib.util.spec_from_file_location("example_reward", EXAMPLES / "reward.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    prompt = [{"role": "user", "content": "Tell me about the garden behind the house."}]
    good = module.score(prompt, "Roses grow there.", words=3)
    assert good == 1
    assert module.score(prompt, "Roses grow there", words=3) < good
    assert module.score(prompt, "Roses grow there.", words=30) < good
    assert module.score(prompt, "Tell me about the garden behind the house.", words=8) < good
    assert module.score(prompt, " ") == -1


def test_run_files_and_data_are_read() -> None:
    for path in EXAMPLES.glob("*.yaml"):
        spec = accord.load_run(path).spec
        assert all(Path(file).is_file() for file in spec.prompts.files)
    for path in EXAMPLES.glob("*.jsonl"):
        assert formats.read(path).records


def test_no_example_is_forgotten_here() -> None:
    tested = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in tested] == []
