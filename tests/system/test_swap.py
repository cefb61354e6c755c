"""The rollout engine is swapped while PPO goes on: nothing lost, nothing twice; who breaks the contract is refused."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from tests.support.generated import assert_whole
from tests.support.loop import controller, finish, tiny_run, wait_for, write_prompts
from tests.support.sdk import Engine, serve

import accord
from accord import discovery
from accord.controller import v1 as controller_v1
from accord.errors import FailedPrecondition, InvalidArgument, Unimplemented
from accord.rollout import v1 as rollout_v1
from accord.runfile import load_edits

POLICY = controller_v1.STAGE_POLICY
STEPS = 200

pytestmark = [pytest.mark.system, pytest.mark.timeout(420)]


class Careless(Engine):
    """Takes any weights and says so, then draws the same token for everybody."""

    def __init__(self) -> None:
        super().__init__()
        self.status = rollout_v1.GetStatusResponse(engine="careless", max_context_tokens=128)

    async def PrepareWeights(self, request, context):  # type: ignore[no-untyped-def]
        raise Unimplemented("weights come in one go here")

    async def UpdateWeights(self, request, context):  # type: ignore[no-untyped-def]
        self.status.ready, self.status.version = True, request.weights.version
        self.status.digest = request.weights.digest
        return rollout_v1.UpdateWeightsResponse(version=request.weights.version, digest=request.weights.digest)

    async def GetStatus(self, request, context):  # type: ignore[no-untyped-def]
        return self.status


async def test_engines_change_during_ppo_and_one_that_breaks_the_contract_is_refused(
    tmp_path: Path, tiny_folder: Path
) -> None:
    state_dir, prompts = tmp_path / "state", write_prompts(tmp_path / "prompts.jsonl")
    run = tiny_run(
        "swapped",
        tiny_folder,
        prompts,
        iterations=1,
        deterministic=False,
        policy__steps=STEPS,
        policy__checkpoint_every=50,
    )
    careless = Careless()
    async with (
        controller(state_dir) as (_, client),
        serve(rollout_v1.add_RolloutServiceServicer_to_server, careless) as bad,
    ):
        await client.runs.create(run)
        await wait_for(client, "swapped", lambda event: event.stage == POLICY and event.step == 1)
        first = discovery.read(state_dir, "rollout")
        assert first is not None
        with pytest.raises(InvalidArgument, match="unknown engine"):
            await client.runs.swap_engine("swapped", "no-such-engine")
        asked = await client.runs.swap_engine("swapped", addresses=[bad], request_id="bad")
        assert await client.runs.swap_engine("swapped", addresses=[bad], request_id="bad") == asked
        refused = await wait_for(client, "swapped", lambda event: event.kind == "swap_refused")
        assert (refused.stage, "keeps serving" in refused.message) == (POLICY, True)
        await client.runs.swap_engine("swapped", "transformers")
        with pytest.raises(FailedPrecondition) as busy:
            await client.runs.swap_engine("swapped", "transformers")
        assert busy.value.reason == "SWAP_UNDER_WAY"
        shifted = await wait_for(client, "swapped", lambda event: event.kind == "swap_shifted")
        done = await wait_for(client, "swapped", lambda event: event.kind == "swap_done")
        assert (shifted.stage, done.stage) == (POLICY, POLICY), "it was to happen while PPO goes on"
        assert 1 < shifted.step < STEPS
        second = discovery.read(state_dir / "rollouts" / "rollout.swapped.2", "rollout")
        assert second is not None
        assert not psutil.pid_exists(first.pid) or psutil.Process(first.pid).status() == psutil.STATUS_ZOMBIE
        ended = await finish(client, "swapped", 300)
        assert ended.status.state == controller_v1.RUN_STATE_SUCCEEDED, ended.status.message
        bad_swap, good_swap = ended.status.swaps
        assert (bad_swap.state, good_swap.state) == (
            controller_v1.SWAP_STATE_REFUSED,
            controller_v1.SWAP_STATE_DONE,
        )
        assert bad_swap.reason == "OTHER_TOKENIZER"
        assert "samples-are-whole" in good_swap.checks
        assert ended.status.rollout.swap == 2
        assert careless.requests == [], "it drew for the run"
        kinds = [event.kind async for event in client.runs.events("swapped")]
        assert not {"retry", "resumed", "paused"} & set(kinds), "the run was to go on undisturbed"
        assert discovery.read(state_dir / "rollouts" / "rollout.swapped.2", "rollout") is None
        with pytest.raises(FailedPrecondition) as over:
            await client.runs.swap_engine("swapped", "transformers")
        assert over.value.reason == "RUN_ENDED"
        await assert_whole(state_dir, ended)


async def test_a_controller_that_is_killed_in_the_middle_of_a_swap_that_an_edit_asked_for_takes_it_up_again(
    tmp_path: Path, tiny_folder: Path
) -> None:
    state_dir, prompts = tmp_path / "state", write_prompts(tmp_path / "prompts.jsonl")
    run = tiny_run("killed", tiny_folder, prompts, iterations=1, deterministic=False, policy__steps=12)
    async with controller(state_dir) as (process, client):
        await client.runs.create(run)
        await wait_for(client, "killed", lambda event: event.stage == POLICY and event.step == 1)
        await client.runs.update(*load_edits("killed", ["rollout.replicas=2"]))
        process.kill()
        async with accord.Client(controller=await process.start()) as again:
            found = await again.runs.get("killed")
            assert found.status.state == controller_v1.RUN_STATE_PAUSED
            assert found.status.swaps[0].state == controller_v1.SWAP_STATE_PENDING
            assert found.status.rollout.swap == 0, "the old engine stays in force until the newcomer has passed"
            await again.runs.resume("killed")
            ended = await finish(again, "killed", 300)
            assert ended.status.state == controller_v1.RUN_STATE_SUCCEEDED, ended.status.message
            assert ended.status.swaps[0].state == controller_v1.SWAP_STATE_DONE
            assert (ended.status.rollout.swap, ended.status.rollout.replicas) == (1, 2)
            assert ended.spec.rollout.replicas == 2
            await assert_whole(state_dir, ended)
