"""`max_staleness` above 0 with real processes: samples of older versions are learned from, and kills double nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.generated import assert_none_too_stale
from tests.support.loop import controller, finish, tiny_run, wait_for, write_prompts

import accord
from accord.controller import v1 as controller_v1

STEPS, STALENESS = 10, 2

pytestmark = [pytest.mark.system, pytest.mark.timeout(420)]


def asynchronous(run_id: str, model: Path, folder: Path) -> controller_v1.Run:
    return tiny_run(
        run_id,
        model,
        write_prompts(folder / "prompts.jsonl"),
        deterministic=False,
        iterations=1,
        evaluate__min_gain=-100.0,
        policy__max_staleness=STALENESS,
        policy__steps=STEPS,
    )


async def policy_events(client: accord.Client, run_id: str) -> list[controller_v1.RunEvent]:
    return [
        event
        async for event in client.runs.events(run_id)
        if event.kind == "step" and event.stage == controller_v1.STAGE_POLICY
    ]


async def test_samples_are_drawn_while_a_step_is_taken_and_a_killed_controller_and_services_double_none(
    tiny_folder: Path, tmp_path: Path
) -> None:
    state_dir = tmp_path / "state"
    async with controller(state_dir) as (process, client):
        await client.runs.create(asynchronous("battered", tiny_folder, tmp_path))
        await wait_for(client, "battered", at_step(3))
        process.kill()
        async with accord.Client(controller=await process.start()) as again:
            await again.runs.resume("battered")
            await wait_for(again, "battered", at_step(5))
            # A checkpoint is made at every second step: some have to be replayed.
            process.kill_service("trainer")
            await wait_for(again, "battered", at_step(7))
            process.kill_service("rollout")
            run = await finish(again, "battered", 300)
            assert run.status.state == controller_v1.RUN_STATE_SUCCEEDED, run.status.message
            events = await policy_events(again, "battered")
    assert {event.step for event in events} == set(range(1, STEPS + 1))
    last = {event.step: event for event in events}
    oldest = await assert_none_too_stale(state_dir, run)
    assert oldest[0] == 0
    assert max(oldest) > 0, "nothing was drawn while a step was taken"
    for step, stale in enumerate(oldest, start=1):
        metrics = last[step].metrics
        assert metrics["staleness_max"] == stale
        assert metrics["staleness"] <= stale
        assert 0 <= metrics["mismatch_kl"] < 1
        assert metrics["wait_seconds"] >= 0


def at_step(step: int):  # type: ignore[no-untyped-def]
    def wanted(event: controller_v1.RunEvent) -> bool:
        return event.kind == "step" and event.stage == controller_v1.STAGE_POLICY and event.step == step

    return wanted
