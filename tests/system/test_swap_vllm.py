"""transformers -> vLLM -> transformers during one PPO run. Part of `make test-vllm`, which makes vLLM's environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.generated import assert_whole
from tests.support.loop import controller, finish, tiny_run, wait_for, write_prompts
from tests.support.tiny import make_tiny_model

from accord.controller import v1 as controller_v1

POLICY = controller_v1.STAGE_POLICY
VLLM_PYTHON = Path(".venv-vllm/bin/python")
OPTIONS = {"kv_cache_gib": 0.25, "engine_args": {"max_num_seqs": 64}}

pytestmark = [
    pytest.mark.system,
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not VLLM_PYTHON.exists(), reason="vLLM is not installed here: make install-vllm"),
]


async def test_a_run_goes_from_transformers_to_vllm_and_back_and_loses_nothing(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", head_dim=32)
    prompts = write_prompts(tmp_path / "prompts.jsonl")
    run = tiny_run(
        "there-and-back", model, prompts, iterations=1, deterministic=False, policy__steps=5000,
        policy__checkpoint_every=500,
    )  # fmt: skip
    async with controller(tmp_path / "state") as (_, client):
        await client.runs.create(run)
        await wait_for(client, run.run_id, lambda event: event.stage == POLICY and event.step == 1)
        last = 1
        for engine in ("vllm", "transformers"):
            if engine == "vllm":  # there by editing the run, back by the command
                run.spec.rollout.engine = engine
                run.spec.rollout.engine_options.update(OPTIONS)
                swap = (await client.runs.update(run)).status.swaps[-1]
            else:
                swap = await client.runs.swap_engine(run.run_id, engine)
            over = await wait_for(
                client,
                run.run_id,
                lambda event, number=swap.number: (
                    event.metrics.get("swap") == number and event.kind in ("swap_done", "swap_refused")
                ),
                400,
            )
            assert (over.kind, over.stage) == ("swap_done", POLICY), over.message
            assert over.step > last
            assert (await client.runs.get(run.run_id)).status.rollout.engine == engine
            last = over.step + 5
            await wait_for(client, run.run_id, lambda event, step=last: event.stage == POLICY and event.step == step)
        await client.runs.pause(run.run_id)
        paused = await finish(client, run.run_id)
        assert paused.status.state == controller_v1.RUN_STATE_PAUSED, paused.status.message
        await assert_whole(tmp_path / "state", paused, steps=last)
