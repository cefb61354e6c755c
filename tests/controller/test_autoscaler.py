"""Rollout replicas follow what is owed: more at once, fewer when fewer would have done for a while."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest
from tests.support.rollout import weights_ref

from accord import discovery
from accord.controller import v1 as controller_v1
from accord.types import v1 as types_v1
from accord_controller.clients import autoscaler
from accord_controller.clients.autoscaler import Autoscaler, Scale
from accord_controller.clients.replica_set import ReplicaSet
from accord_controller.launchers.local.launcher import LocalLauncher
from accord_controller.settings import ControllerSettings
from accord_controller.spec.defaults import resolve

pytestmark = pytest.mark.process


def test_there_are_more_at_once_and_fewer_only_after_a_while() -> None:
    scale = Scale(most=3, tokens_per_replica=100, idle_seconds=60)
    assert [scale.wanted(now, owed, 1) for now, owed in ((0, 0), (1, 100), (2, 101), (3, 999))] == [1, 1, 2, 3]
    assert scale.wanted(62, 150, 1) == 3
    assert scale.wanted(64, 0, 1) == 2  # what was owed at 62 counts still
    assert scale.wanted(123, 0, 1) == 1
    assert scale.wanted(124, 0, 4) == 4


def test_where_the_most_is_not_above_the_least_the_number_is_fixed() -> None:
    spec = controller_v1.RunSpec()
    assert Scale.of(resolve(spec)) is None
    spec.rollout.replicas, spec.rollout.autoscale.max_replicas = 2, 2
    assert Scale.of(resolve(spec)) is None
    spec.rollout.autoscale.max_replicas = 4
    assert Scale.of(resolve(spec)) == Scale(most=4, tokens_per_replica=16384, idle_seconds=60)


@pytest.mark.timeout(900)  # two services start, maybe on busy cores
async def test_replicas_come_with_the_active_weights_and_go_when_they_are_idle(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With processes; every sample is generated once."""
    monkeypatch.setattr(autoscaler, "LOOK_SECONDS", 0.02)
    events: list[tuple[str, str]] = []

    async def tell(kind: str, message: str) -> None:
        events.append((kind, message))

    launcher = LocalLauncher(ControllerSettings(state_dir=tmp_path / "state", rollout_threads=1, start_seconds=400))
    rollouts = ReplicaSet(launcher, "demo", 60)
    scaling = Autoscaler(rollouts)
    sampling = types_v1.SamplingParams(max_new_tokens=24)
    one = controller_v1.RolloutServices(engine="transformers", replicas=1)

    async def generate(number: int) -> None:
        stream = rollouts.generate(["a", "b"], sampling=sampling, n=32, version=1, request_id=f"r{number}")
        found = [response async for response in stream]
        assert sorted(response.sample.index for response in found) == list(range(64))
        assert {response.sample.segments[0].version for response in found} == {1}

    try:
        await rollouts.connect(lambda: one, tell)
        scaling.start(Scale(most=2, tokens_per_replica=768, idle_seconds=3))
        await rollouts.acquire()
        await rollouts.update_weights(weights_ref(tiny_folder, 1))
        number = 0
        async with asyncio.timeout(800):
            while len(rollouts.addresses) < 2:
                await generate(number := number + 1)
            # A stage that is entered again finds as many as there were.
            await rollouts.connect(lambda: one, tell)
            assert len(rollouts.addresses) == 2
            await generate(number + 1)
            second = discovery.read(tmp_path / "state" / "rollouts" / "rollout-2", "rollout")
            assert second is not None
            while psutil.pid_exists(second.pid):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert len(rollouts.addresses) == 1
        scaled = [message for kind, message in events if kind == "scaled"]
        await generate(number + 2)
        assert scaled[0].startswith("2 rollout replicas instead of 1: ")
        assert scaled[-1].startswith("1 rollout replicas instead of 2: ")
    finally:
        await scaling.close()
        await rollouts.close()
        await launcher.close()
