"""A run whose rollout service follows the trainer by deltas, through kills of both: nothing is lost, all is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.generated import assert_whole
from tests.support.loop import controller, finish, tiny_run, wait_for, write_prompts

from accord.controller import v1 as controller_v1

POLICY = controller_v1.STAGE_POLICY

pytestmark = [pytest.mark.system, pytest.mark.timeout(420)]


async def test_a_run_goes_on_by_deltas_through_kills_and_says_what_each_step_changed(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCORD_TRAINER_SCHEME", "grpc")
    monkeypatch.setenv("ACCORD_TRAINER_DELTA_BELOW", "0.9")
    run = tiny_run("thin", tiny_folder, write_prompts(tmp_path / "prompts.jsonl"), iterations=1, policy__steps=10)
    run.spec.policy.options.update({"trainable_layers": 1})
    async with controller(tmp_path / "state") as (process, client):
        await client.runs.create(run)
        for step, service in ((3, "rollout"), (6, "trainer")):
            await wait_for(client, "thin", lambda event, at=step: event.stage == POLICY and event.step == at)
            process.kill_service(service)
        ended = await finish(client, "thin", 300)
        assert ended.status.state == controller_v1.RUN_STATE_SUCCEEDED, ended.status.message
        events = [event async for event in client.runs.events("thin")]
        steps = {event.step: event.metrics for event in events if event.kind == "step" and event.stage == POLICY}
        assert sorted(steps) == list(range(1, 11))
        thin = [step for step, metrics in steps.items() if "delta_bytes" in metrics]
        # The first has no base; what is replayed after a kill is not published, so that one more may have none.
        assert 1 not in thin
        assert len(thin) >= 7
        for step in thin:
            assert 0 < steps[step]["delta_changed"] < 0.5
            assert steps[step]["delta_bytes"] < 0.9 * steps[step]["whole_bytes"]
        # Where no other source was told of, the delta served.
        assert [event.message for event in events if event.kind == "weights_fallback"] == []
        await assert_whole(tmp_path / "state", ended)
