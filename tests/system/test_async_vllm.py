"""`max_staleness` above 0 on vLLM: new weights come into force between two tokens. Part of `make test-vllm`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.generated import assert_none_too_stale, drawn_by_step
from tests.support.loop import controller, finish, tiny_run, write_prompts
from tests.support.tiny import make_tiny_model

from accord.controller import v1 as controller_v1

VLLM_PYTHON = Path(".venv-vllm/bin/python")

pytestmark = [
    pytest.mark.system,
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not VLLM_PYTHON.exists(), reason="vLLM is not installed here: make install-vllm"),
]


async def test_weights_change_in_the_middle_of_responses_and_every_token_says_which_drew_it(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", head_dim=32)
    run = tiny_run(
        "in-flight", model, write_prompts(tmp_path / "prompts.jsonl"), iterations=1, deterministic=False,
        policy__max_staleness=2, policy__steps=12, policy__checkpoint_every=6, rollout__engine="vllm",
        rollout__max_new_tokens=96,
    )  # fmt: skip
    # Four at a time, so that drawing takes longer than a step: or no weights would come in the middle of it.
    run.spec.rollout.engine_options.update({"kv_cache_gib": 0.25, "engine_args": {"max_num_seqs": 4}})
    async with controller(tmp_path / "state", "--start-seconds", "600") as (_, client):
        await client.runs.create(run)
        ended = await finish(client, run.run_id, 800)
        assert ended.status.state == controller_v1.RUN_STATE_SUCCEEDED, ended.status.message
    assert max(await assert_none_too_stale(tmp_path / "state", ended)) > 0
    samples = [sample for batch in await drawn_by_step(tmp_path / "state", ended) for sample in batch]
    assert {sample.engine for sample in samples} == {"vllm"}
    mixed = [sample for sample in samples if len(sample.segments) > 1]
    assert mixed, "no weights came into force in the middle of a response"
    for sample in mixed:
        starts, versions = zip(*((one.start, one.version) for one in sample.segments), strict=True)
        assert (starts[0], list(starts)) == (0, sorted(set(starts)))
        assert starts[-1] < len(sample.response_token_ids)
        assert list(versions) == sorted(set(versions)), "weights only become newer"
