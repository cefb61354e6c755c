"""People feed a run, in real processes: it waits, goes on at its threshold, takes later what comes later, and
afterwards it can be told who made what."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.loop import controller, finish, tiny_run, wait_for, write_prompts

import accord
from accord import discovery
from accord.controller import v1 as controller_v1
from accord.preference import v1 as preference_v1

pytestmark = [pytest.mark.system, pytest.mark.timeout(420)]


def person(name: str) -> preference_v1.Annotator:
    return preference_v1.Annotator(annotator_id=name, kind=preference_v1.ANNOTATOR_KIND_HUMAN)


async def answer(client: accord.Client, queue: str, name: str, count: int) -> int:
    """A person prefers the shorter answer, `count` times at most; returns how often."""
    for done in range(count):
        lease = await client.preferences.lease_task(person(name), queue=queue)
        if lease is None:
            return done
        better, worse = sorted(lease.completions, key=lambda one: (len(one.text), one.text))
        feedback = preference_v1.Feedback(
            prompt_id=lease.task.prompt_id,
            annotator=person(name),
            task_id=lease.task.task_id,
            comparison=preference_v1.Comparison(chosen_id=better.completion_id, rejected_id=worse.completion_id),
        )
        await client.preferences.submit(feedback, lease_id=lease.lease_id)
    return count


async def told(loop: accord.Client, iteration: int, said: str) -> None:
    """Waits until the run says so."""

    def wanted(event: controller_v1.RunEvent) -> bool:
        return event.kind == "waiting" and event.iteration == iteration and said in event.message

    await wait_for(loop, "people", wanted, 200)


async def test_a_run_waits_for_people_goes_on_and_learns_later_from_what_comes_later(
    tmp_path: Path, tiny_folder: Path
) -> None:
    run = tiny_run("people", tiny_folder, write_prompts(tmp_path / "prompts.jsonl"), policy__steps=2)
    run.spec.feedback.ClearField("simulated")
    run.spec.feedback.people.min_judgements = 12
    run.spec.reward_model.weighting = "reliability"
    run.spec.evaluate.scorers.add(name="length").options.update({"target": 60})
    run.spec.evaluate.min_gain = -1000.0
    async with controller(tmp_path / "state") as (_, loop):
        await loop.runs.ensure_services()
        await loop.runs.create(run)
        await told(loop, 1, "waiting for people")
        service = discovery.read(tmp_path / "state", "preference")
        assert service is not None
        async with accord.Client(preference=service.address) as client:
            assert await answer(client, "people/iteration-1", "ann", 12) == 12
            await told(loop, 1, "continuing: 12 judgements were given")
            # The rest stays open: somebody answers three of it while the run trains.
            assert await answer(client, "people/iteration-1", "bob", 3) == 3
            await told(loop, 2, "waiting for people")
            # Whoever takes any task of the run gets the newest first.
            assert await answer(client, "people/", "ann", 12) == 12
            done = await finish(loop, "people", 200)
            assert done.status.state == controller_v1.RUN_STATE_SUCCEEDED, done.status.message
            first, second = done.status.iterations[1:]
            records = [r async for r in client.preferences.export_snapshot(second.preference_snapshot)]
            assert len(records) == 27
            assert {record.feedback.annotator.annotator_id for record in records} == {"ann", "bob"}
            for iteration in (1, 2):
                left = await client.preferences.queue(f"people/iteration-{iteration}")
                assert (left.open_tasks, left.cancelled_tasks > 0) == (0, True)
            gone = await client.annotators.withdraw(person("bob"))
        assert [use.snapshot.digest for use in gone.snapshots] == [second.preference_snapshot]
        learnt = await loop.models.trained_on([use.snapshot.digest for use in gone.snapshots])
        assert [(model.step.iteration, model.step.model) for model in learnt] == [(2, "people-2")]
        lineage = await loop.models.lineage("people-2")
        assert [step.preference_snapshot for step in lineage.steps] == [
            second.preference_snapshot,
            first.preference_snapshot,
        ]
        assert lineage.steps[0].started_from.digest == first.policy.digest
        assert lineage.steps[1].reward_model.digest == first.reward_model.digest
        by_digest = await loop.models.lineage(weights_digest=second.reward_model.digest[:16])
        assert [step.iteration for step in by_digest.steps] == [2, 1]
