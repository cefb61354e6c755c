"""`max_staleness` above 0 with real processes: samples of older versions are learned from, and kills double nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.controller import database
from tests.support.loop import controller, finish, tiny_run, wait_for, write_prompts

import accord
from accord.controller import v1 as controller_v1
from accord.trainer import v1 as trainer_v1
from accord_controller.ledger import Ledger
from accord_controller.store.store import Store
from accord_runtime.database import open_database

STEPS, STALENESS = 10, 2

pytestmark = pytest.mark.timeout(420)


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


async def recorded(state_dir: Path, run_id: str) -> tuple[list[list[trainer_v1.ScoredSample]], list[str]]:
    """The experience of each step, and the digest of each version, as the ledger has them."""
    store = Store(open_database(database(state_dir)))
    try:
        ledger = await Ledger.load(store, run_id, state_dir)
        batches = [
            await ledger.read(f"1/policy/{step:05d}/experience", trainer_v1.ScoredSample)
            for step in range(1, STEPS + 1)
        ]
        results = [ledger.need(f"1/policy/{step:05d}/step", trainer_v1.StepResult) for step in range(1, STEPS + 1)]
        assert f"1/policy/{STEPS + 1:05d}/experience" not in ledger
    finally:
        await store.close()
    assert all(batch is not None for batch in batches)
    return [batch or [] for batch in batches], [result.digest for result in results]


def hold(batches: list[list[trainer_v1.ScoredSample]], digests: list[str], run: controller_v1.Run) -> list[int]:
    """No sample lost, none twice, each as stale as it may be and made by weights that the run made; how stale the
    oldest token of each step was."""
    keys = [(one.sample.request_id, one.sample.index) for batch in batches for one in batch]
    assert len(keys) == len(set(keys)) == STEPS * 16
    made_by = {0: run.status.iterations[0].policy.digest, **dict(enumerate(digests, start=1))}
    oldest = []
    for step, batch in enumerate(batches, start=1):
        versions = {segment.version for one in batch for segment in one.sample.segments}
        assert max(0, step - 1 - STALENESS) <= min(versions) <= max(versions) <= step - 1, step
        oldest.append(step - 1 - min(versions))
        for one in batch:
            assert all(segment.digest == made_by[segment.version] for segment in one.sample.segments)
    return oldest


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
    oldest = hold(*await recorded(state_dir, "battered"), run)
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
