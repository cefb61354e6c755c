"""A run with several rollout services: one is killed, nothing is lost or doubled, it is started again."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.generated import assert_whole
from tests.support.loop import controller, finish, tiny_run, wait_for, write_prompts

from accord import discovery
from accord.controller import v1 as controller_v1

POLICY = controller_v1.STAGE_POLICY

pytestmark = [pytest.mark.system, pytest.mark.timeout(420)]


async def test_a_replica_that_dies_during_ppo_costs_no_sample_and_is_started_again(
    tmp_path: Path, tiny_folder: Path
) -> None:
    state_dir, prompts = tmp_path / "state", write_prompts(tmp_path / "prompts.jsonl")
    run = tiny_run(
        "several", tiny_folder, prompts, iterations=1, deterministic=False, policy__steps=12, rollout__replicas=2
    )
    async with controller(state_dir) as (process, client):
        await client.runs.create(run)
        await wait_for(client, "several", lambda event: event.stage == POLICY and event.step == 2)
        dead = process.kill_service("rollout", "rollout-2")
        lost = await wait_for(client, "several", lambda event: "was lost" in event.message, 120)
        assert lost.stage == POLICY
        ended = await finish(client, "several", 300)
        assert ended.status.state == controller_v1.RUN_STATE_SUCCEEDED, ended.status.message
        assert (ended.status.rollout.engine, ended.status.rollout.replicas) == ("transformers", 2)
        again = discovery.read(state_dir / "rollouts" / "rollout-2", "rollout")
        assert again is not None, "a lost replica is started again"
        assert again.pid != dead
        kinds = [event.kind async for event in client.runs.events("several")]
        assert "resumed" not in kinds
        assert kinds.count("stage_started") == 5, "a lost replica costs no stage its progress"
        await assert_whole(state_dir, ended)
