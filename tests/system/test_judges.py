"""A run whose annotator is a language model, and which selects what it asks about, in real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.judge_peer import peer
from tests.support.loop import controller, finish, tiny_run, write_prompts

import accord
from accord import discovery
from accord.controller import v1 as controller_v1
from accord.preference import v1 as preference_v1

pytestmark = [pytest.mark.system, pytest.mark.timeout(540)]


async def test_judges_feed_a_run_and_its_second_iteration_asks_where_the_ensemble_differs(
    tmp_path: Path, tiny_folder: Path
) -> None:
    run = tiny_run("judged", tiny_folder, write_prompts(tmp_path / "prompts.jsonl"), policy__steps=1)
    run.spec.feedback.ClearField("simulated")
    run.spec.feedback.prompts_per_iteration = 10
    run.spec.feedback.selection, run.spec.feedback.selection_pool = "disagreement", 20
    run.spec.reward_model.options.update({"ensemble": 3})
    run.spec.evaluate.scorers.add(name="length").options.update({"target": 60})
    run.spec.evaluate.min_gain, run.spec.evaluate.prompts = -1000.0, 2
    with peer() as server:
        run.spec.feedback.judges.judges.add(name="strict", url=server.url, model="ruler")
        run.spec.feedback.judges.judges.add(name="lenient", url=server.url, model="ruler", instructions="Be kind.")
        async with controller(tmp_path / "state") as (_, loop):
            await loop.runs.ensure_services()
            await loop.runs.create(run)
            done = await finish(loop, "judged", 480)
            assert done.status.state == controller_v1.RUN_STATE_SUCCEEDED, done.status.message
            assert not done.status.simulated_feedback
            events = [event async for event in loop.runs.events("judged")]
            service = discovery.read(tmp_path / "state", "preference")
            assert service is not None
            async with accord.Client(preference=service.address) as client:
                digest = done.status.iterations[2].preference_snapshot
                records = [record async for record in client.preferences.export_snapshot(digest)]
        assert {asked["messages"][0]["content"][:8] for asked in server.seen} == {"You comp", "Be kind."}
    assert {record.feedback.annotator.annotator_id for record in records} == {"strict", "lenient"}
    assert {record.feedback.annotator.kind for record in records} == {preference_v1.ANNOTATOR_KIND_MODEL}
    [selected] = [event for event in events if event.kind == "selected"]
    assert selected.iteration == 2
    assert selected.metrics["selected_value"] > selected.metrics["pool_value"] > 0
    # 8 of the training side and 2 held out were asked, of the 20 that were answered.
    asked = {record.prompt.prompt_id for record in records if record.completions[0].origin.iteration == 2}
    assert len(asked) <= 10
