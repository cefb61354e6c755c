"""What a stage used: counted from real service processes, over their deaths and the controller's, each once."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from tests.support.controller import add_run, open_recorder, open_store

import accord
from accord import discovery
from accord.controller import v1 as controller_v1
from accord.preference import v1 as preference_v1
from accord_controller.clients.service_clients import Services
from accord_controller.clients.usage_meter import Reading, UsageMeter
from accord_controller.launchers.local.launcher import LocalLauncher
from accord_controller.settings import ControllerSettings

pytestmark = pytest.mark.process


async def busy(client: accord.Client, texts: range) -> None:
    """Has the preference service do something that takes it processor time."""
    prompts = [preference_v1.Prompt(source="busy") for _ in texts]
    for number, prompt in zip(texts, prompts, strict=True):
        prompt.conversation.messages.add(role="user", content=f"prompt {number}")
    for start in range(0, len(prompts), 500):
        await client.preferences.create_prompts(prompts[start : start + 500])


async def test_what_services_use_is_counted_also_of_one_that_was_killed_and_started_again(tmp_path: Path) -> None:
    launcher = LocalLauncher(ControllerSettings(state_dir=tmp_path, start_seconds=60))
    services = Services(launcher, "demo", 60)
    try:
        await services.connect(["preference"])
        used = controller_v1.StageUsage()
        meter = UsageMeter(services)
        async with meter.measuring(used):
            assert used.cpu_seconds["preference"] == 0  # its start is not this stage's
            await busy(services.client, range(2000))
            record = discovery.read(tmp_path, "preference")
            assert record is not None
            process = psutil.Process(record.pid)
            await meter.read()
            first = used.cpu_seconds["preference"]
            assert 0 < first < sum(process.cpu_times()[:2])
            assert used.cpu_seconds["controller"] > 0
            assert list(used.unknown) == ["reward", "rollout", "trainer"]
            process.kill()
            await services.connect(["preference"])
            await meter.read()
            record = discovery.read(tmp_path, "preference")
            assert record is not None
            began_anew = sum(psutil.Process(record.pid).cpu_times()[:2])
            # The new process counts from its start: it started for this stage.
            assert used.cpu_seconds["preference"] - first == pytest.approx(began_anew, abs=0.5)
    finally:
        await services.close()
        await launcher.close()


async def test_what_a_stage_used_survives_the_controller_and_the_next_stage_begins_at_nothing(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await add_run(store)
        recorder = await open_recorder(store, tmp_path)
        await recorder.enter(1, controller_v1.STAGE_COLLECT)
        recorder.stage_usage.cpu_seconds["reward"] = 3.5
        await recorder.progress(1, 2)
        again = await open_recorder(store, tmp_path)
        assert again.stage_usage.cpu_seconds["reward"] == 3.5
        await again.enter(1, controller_v1.STAGE_COLLECT)
        assert again.stage_usage.cpu_seconds["reward"] == 3.5
        await again.enter(1, controller_v1.STAGE_REWARD_MODEL)
        assert not (await store.stage_usage("demo")).cpu_seconds


def test_a_gpu_that_two_services_hold_counts_once_and_none_is_not_zero_seconds() -> None:
    meter = UsageMeter(Services(LocalLauncher(ControllerSettings()), "demo", 60))
    used = meter.used

    def look(moment: float, **gpus: list[str]) -> None:
        meter.add({name: Reading(name, name, moment, held) for name, held in gpus.items()}, moment)

    look(10, trainer=[], rollout=[])
    look(20, trainer=[], rollout=[])
    assert not used.HasField("gpu_seconds")
    look(25, trainer=["here/0", "here/1"], rollout=["here/0"])
    assert used.gpu_seconds == 2 * 5
    assert dict(used.cpu_seconds) == {"trainer": 15, "rollout": 15}
