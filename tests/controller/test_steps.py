"""Steps against a real trainer: what it lost is replayed from the ledger, and a replay that differs is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.stage import stage_context
from tests.support.trainer import pairs, training

from accord.errors import DataLoss, FailedPrecondition
from accord.trainer import v1 as trainer_v1
from accord_controller.ledger.keys import step_key
from accord_controller.stages.context import StageContext
from accord_controller.stages.steps import Batch, Plan, catch_up, open_training, recorded_steps, run_steps

pytestmark = pytest.mark.process

STEPS = 3


def plan_of(steps: int = STEPS) -> Plan:
    async def batch(step: int) -> Batch:
        return Batch(preferences=pairs(6)[2 * step - 2 : 2 * step])

    return Plan(1, "reward_model", steps, publish=True, batch=batch)


async def digests(context: StageContext, steps: int = STEPS) -> list[str]:
    return [
        context.ledger.need(step_key(1, "reward_model", step), trainer_v1.StepResult).digest
        for step in range(1, steps + 1)
    ]


async def tamper(context: StageContext, step: int) -> None:
    """The ledger says that a step came out as something else."""
    name = step_key(1, "reward_model", step)
    result = context.ledger.need(name, trainer_v1.StepResult)
    result.digest = "0" * 64
    await context.recorder.record_entries([context.ledger.message_entry(name, result)], forget=[name])


async def test_a_trainer_that_lost_its_steps_repeats_them(tiny_folder: Path, tmp_path: Path) -> None:
    wanted = training(tiny_folder, "demo-1-reward-model", "reward_model", seed=3)
    async with stage_context(tmp_path) as (context, _):
        await run_steps(context, await open_training(context, wanted), plan_of())
        first = await digests(context)
        assert len(set(first)) == STEPS
    async with stage_context(tmp_path, "empty") as (context, client):
        opened = await open_training(context, wanted)
        assert opened.version == 0
        assert await catch_up(context, opened, plan_of()) == STEPS
        now = await client.trainer.training(wanted.training_id)
        assert (now.version, now.digest) == (STEPS, first[-1])
        assert await digests(context) == first
        kinds = [event.kind for event in await context.store.events("demo", 0, 100)]
        assert kinds == ["step"] * STEPS + ["replayed"]


async def test_continuing_takes_only_the_steps_that_are_missing(tiny_folder: Path, tmp_path: Path) -> None:
    wanted = training(tiny_folder, "demo-1-reward-model", "reward_model", seed=3)
    async with stage_context(tmp_path) as (context, _):
        await run_steps(context, await open_training(context, wanted), plan_of(1))
        await run_steps(context, await open_training(context, wanted), plan_of())
        events = await context.store.events("demo", 0, 100)
        assert [event.step for event in events if event.kind == "step"] == [1, 2, 3]
        assert all(event.metrics["eta_seconds"] >= 0 for event in events)


async def test_an_answer_that_never_reached_the_ledger_is_asked_for_again(tiny_folder: Path, tmp_path: Path) -> None:
    wanted = training(tiny_folder, "demo-1-reward-model", "reward_model", seed=3)
    async with stage_context(tmp_path) as (context, client):
        await run_steps(context, await open_training(context, wanted), plan_of(2))
        recorded = await digests(context, 2)
        await context.recorder.record_entries([], forget=[step_key(1, "reward_model", 2)])
        await run_steps(context, await open_training(context, wanted), plan_of(2))
        assert await digests(context, 2) == recorded
        assert (await client.trainer.training(wanted.training_id)).version == 2


async def test_a_replay_that_differs_fails_a_deterministic_run_loudly(tiny_folder: Path, tmp_path: Path) -> None:
    wanted = training(tiny_folder, "demo-1-reward-model", "reward_model", seed=3)
    async with stage_context(tmp_path) as (context, _):
        await run_steps(context, await open_training(context, wanted), plan_of())
        await tamper(context, 2)
    async with stage_context(tmp_path, "empty") as (context, _):
        with pytest.raises(FailedPrecondition, match="step 2 of reward_model in iteration 1") as caught:
            await catch_up(context, await open_training(context, wanted), plan_of())
        assert caught.value.reason == "REPLAY_DIVERGED"
        assert recorded_steps(context, plan_of()) == STEPS


async def test_in_another_run_the_steps_after_it_are_forgotten_and_taken_anew(
    tiny_folder: Path, tmp_path: Path
) -> None:
    wanted = training(tiny_folder, "demo-1-reward-model", "reward_model", seed=3)
    async with stage_context(tmp_path, deterministic=False) as (context, _):
        await run_steps(context, await open_training(context, wanted), plan_of())
        first = await digests(context)
        await tamper(context, 2)
    async with stage_context(tmp_path, "empty", deterministic=False) as (context, client):
        assert await catch_up(context, await open_training(context, wanted), plan_of()) == 2
        assert await digests(context, 2) == first[:2]
        assert recorded_steps(context, plan_of()) == 2
        last = (await context.store.events("demo", 0, 100))[-1]
        assert (last.kind, last.metrics["forgotten_steps"]) == ("replayed", 1.0)
        await run_steps(context, await client.trainer.training(wanted.training_id), plan_of())
        assert recorded_steps(context, plan_of()) == STEPS


async def test_a_trainer_ahead_of_the_ledger_is_an_error(tiny_folder: Path, tmp_path: Path) -> None:
    wanted = training(tiny_folder, "demo-1-reward-model", "reward_model", seed=3)
    async with stage_context(tmp_path) as (context, _):
        await run_steps(context, await open_training(context, wanted), plan_of())
        await context.recorder.record_entries([], forget=[step_key(1, "reward_model", step) for step in (1, 2, 3)])
        with pytest.raises(DataLoss, match="is at version 3, the ledger at 0"):
            await catch_up(context, await open_training(context, wanted), plan_of())
