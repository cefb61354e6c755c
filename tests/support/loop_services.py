"""The four services of a loop in this process, real and tiny; controllers that commands start find them by address."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from accord import discovery
from accord_controller import service as controller
from accord_controller.settings import ControllerSettings
from accord_preference import service as preference
from accord_preference.settings import PreferenceSettings
from accord_reward import service as reward
from accord_reward.settings import RewardSettings
from accord_rollout import service as rollout
from accord_rollout.settings import RolloutSettings
from accord_runtime.serving.server import serving
from accord_trainer import service as trainer
from accord_trainer.settings import TrainerSettings

RUN = """
apiVersion: accord.dev/v1
kind: Run
metadata: {{name: tiny}}
spec:
  model: {model}
  iterations: 2
  seed: 3
  prompts: {{files: [prompts.jsonl]}}
  rollout: {{maxNewTokens: 8}}
  feedback: {{simulated: {{scorers: [{{name: length}}]}}, promptsPerIteration: 8}}
  rewardModel: {{batchSize: 4}}
  policy: {{steps: 4, promptsPerStep: 2, samplesPerPrompt: 2}}
  evaluate: {{prompts: 4, minGain: -1000, maxKl: 1000}}
"""


def write_run(folder: Path, model: Path) -> None:
    """`run.yaml` and its prompts."""
    (folder / "run.yaml").write_text(RUN.format(model=model))
    rows = [{"prompt": f"Tell me about number {number}, please."} for number in range(40)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@asynccontextmanager
async def loop_services(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Serves rollout, reward, preference and trainer, and tells commands of this test where."""
    small = {"state_dir": state_dir, "threads": 1}
    async with AsyncExitStack() as stack:
        rollout_settings = RolloutSettings(dtype="float32", device="cpu", **small)
        reward_settings = RewardSettings(state_dir=state_dir)
        preference_settings = PreferenceSettings(state_dir=state_dir)
        trainer_settings = TrainerSettings(**small)
        built = {
            "rollout": (await rollout.build(rollout_settings), rollout_settings),
            "reward": (await reward.build(reward_settings), reward_settings),
            "preference": (await preference.build(preference_settings), preference_settings),
            "trainer": (await trainer.build(trainer_settings), trainer_settings),
        }
        for name, (service, settings) in built.items():
            address = await stack.enter_async_context(serving(service, settings))
            monkeypatch.setenv(f"ACCORD_CONTROLLER_{name.upper()}_ADDRESS", address)
        # The lease of a killed controller ends soon, so that the next one need not wait for it long.
        monkeypatch.setenv("ACCORD_CONTROLLER_LEASE_SECONDS", "3")
        yield


@asynccontextmanager
async def controller_here(state_dir: Path) -> AsyncIterator[None]:
    """A controller in this process, which commands find: cheaper than one that each of them starts."""
    settings = ControllerSettings(state_dir=state_dir)
    async with serving(await controller.build(settings), settings) as address:
        discovery.write(state_dir, "controller", address)
        try:
            yield
        finally:
            discovery.remove(state_dir, "controller")
