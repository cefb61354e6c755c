"""The whole loop with real processes of all services and a tiny real model: to its end, and through kills."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from tests.support.controller import database
from tests.support.loop import Controller, finish, tiny_run, wait_for, write_prompts

import accord
from accord import discovery
from accord.controller import v1 as controller_v1
from accord.digest import weights_digest
from accord.preference import v1 as preference_v1
from accord.trainer import v1 as trainer_v1
from accord_controller.ledger.ledger import Ledger
from accord_controller.store.store import Store
from accord_runtime.database.transactions import open_database

STEPS = 5
POLICY = controller_v1.STAGE_POLICY

pytestmark = [pytest.mark.system, pytest.mark.timeout(420), pytest.mark.asyncio(loop_scope="module")]


class Site:
    """One installation that the tests of this module share: starting torch three times is most of the time."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.model = model
        self.prompts = write_prompts(folder / "prompts.jsonl")
        self.controller = Controller(self.state_dir)
        self.client: accord.Client | None = None

    async def restart(self) -> accord.Client:
        """A controller and a client of it."""
        if self.client is not None:
            await self.client.close()
        self.client = accord.Client(controller=await self.controller.start())
        return self.client

    def run(self, run_id: str, **changes: object) -> controller_v1.Run:
        """The loop of these tests: every candidate is promoted, so that each iteration builds on the one before."""
        return tiny_run(run_id, self.model, self.prompts, evaluate__min_gain=-100.0, **changes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"), tiny_folder)
    try:
        await made.restart()
        yield made
    finally:
        made.controller.end_everything()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def calm(site: Site) -> controller_v1.Run:
    """A run that nobody disturbed."""
    assert site.client is not None
    await site.client.runs.create(site.run("calm"))
    run = await finish(site.client, "calm", 300)
    assert run.status.state == controller_v1.RUN_STATE_SUCCEEDED, run.status.message
    return run


async def test_two_iterations_run_to_their_end(site: Site, calm: controller_v1.Run) -> None:
    results = calm.status.iterations
    assert [result.iteration for result in results] == [0, 1, 2]
    assert all(result.promoted for result in results)
    assert len({result.policy.digest for result in results}) == 3
    for result in results:
        assert result.HasField("heldout_score")
        assert result.seconds > 0
        assert [sample.prompt_id for sample in result.samples] == [sample.prompt_id for sample in results[0].samples]
    assert not results[0].HasField("rm_accuracy")
    for result in results[1:]:
        assert set(result.stage_seconds) == {"collect", "reward_model", "policy", "evaluate"}
        assert [ref.digest for ref in result.also_learnt_from] == [results[0].policy.digest]
        assert set(result.stage_usage) == set(result.stage_seconds)
        # Each process by itself: who works in a stage has used more than who waits.
        collect, learn, ppo = (result.stage_usage[name].cpu_seconds for name in ("collect", "reward_model", "policy"))
        assert collect["rollout"] > 0.01
        assert learn["trainer"] > learn["rollout"]
        assert min(ppo["trainer"], ppo["rollout"], ppo["reward"], ppo["controller"]) > 0.01
        assert not result.stage_usage["policy"].unknown
        assert not result.stage_usage["policy"].HasField("gpu_seconds") or torch.cuda.is_available()
        assert 0 <= result.rm_accuracy <= 1
        assert result.kl_nats != 0
    assert results[1].preference_snapshot != results[2].preference_snapshot
    assert calm.status.promoted.digest == results[2].policy.digest
    assert calm.status.simulated_feedback
    async with accord.Client.discover(site.state_dir) as client:
        learnt = [record async for record in client.preferences.export_snapshot(results[2].preference_snapshot)]
    assert {answer.finish_reason for record in learnt for answer in record.completions} <= {1, 2}


async def test_published_policies_are_in_the_registry_and_are_what_they_say(
    site: Site, calm: controller_v1.Run
) -> None:
    assert site.client is not None
    models = {model.name: model async for model in site.client.models.list() if model.run_id == "calm"}
    assert set(models) == {"calm-0", "calm-1", "calm-2"}
    assert [name for name, model in models.items() if model.current] == ["calm-2"]
    weights = (await site.client.models.get("models/calm-2")).weights
    assert weights == calm.status.promoted
    assert weights_digest(Path(weights.uri.removeprefix("file://"))) == weights.digest


async def test_events_tell_every_step_once_with_its_figures(site: Site, calm: controller_v1.Run) -> None:
    assert site.client is not None
    events = [event async for event in site.client.runs.events("calm")]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    steps = [event for event in events if is_policy_step(event)]
    assert [(event.iteration, event.step) for event in steps] == [(i, s) for i in (1, 2) for s in range(1, STEPS + 1)]
    for event in steps:
        assert {"score", "reward", "kl_k1", "samples_per_second", "eta_seconds"} <= set(event.metrics)
    assert events[-1].kind == "succeeded"


async def test_feedback_is_always_called_simulated(site: Site, calm: controller_v1.Run) -> None:
    preference = discovery.read(site.state_dir, "preference")
    assert preference is not None
    async with accord.Client(preference=preference.address) as client:
        digest = calm.status.iterations[2].preference_snapshot
        records = [record async for record in client.preferences.export_snapshot(digest)]
    assert {record.feedback.annotator.kind for record in records} == {preference_v1.ANNOTATOR_KIND_SIMULATED}
    assert {record.prompt.split for record in records} == {preference_v1.SPLIT_TRAIN, preference_v1.SPLIT_HELDOUT}


async def test_killed_services_and_a_killed_controller_change_nothing(site: Site, calm: controller_v1.Run) -> None:
    assert site.client is not None
    await site.client.runs.create(site.run("battered"))
    await wait_for(site.client, "battered", at_step(1, 3))
    site.controller.kill()
    client = await site.restart()
    interrupted = await client.runs.get("battered")
    assert interrupted.status.state == controller_v1.RUN_STATE_PAUSED
    assert "interrupted" in interrupted.status.message
    await client.runs.resume("battered")
    # A checkpoint is made at every second step: this one has to be replayed.
    await wait_for(client, "battered", at_step(2, 3))
    dead = site.controller.kill_service("trainer")
    await wait_for(client, "battered", at_step(2, 4))
    site.controller.kill_service("rollout")
    site.controller.kill_service("reward")
    run = await finish(client, "battered", 300)
    assert run.status.state == controller_v1.RUN_STATE_SUCCEEDED, run.status.message
    assert discovery.read(site.state_dir, "trainer").pid != dead  # type: ignore[union-attr]
    kinds = [event.kind async for event in client.runs.events("battered")]
    assert {"resumed", "replayed"} <= set(kinds)
    assert kinds.count("service_restarted") == 3
    assert digests(run) == digests(calm)
    assert [result.heldout_score for result in run.status.iterations] == [
        result.heldout_score for result in calm.status.iterations
    ]
    assert await experience(site, "battered") == await experience(site, "calm")


async def test_a_paused_run_goes_on_where_it_was(site: Site, calm: controller_v1.Run) -> None:
    assert site.client is not None
    await site.client.runs.create(site.run("paused", iterations=1))
    await wait_for(site.client, "paused", at_step(1, 2))
    await site.client.runs.pause("paused")
    paused = await finish(site.client, "paused")
    assert paused.status.state == controller_v1.RUN_STATE_PAUSED
    assert paused.status.step < STEPS
    await site.client.runs.resume("paused")
    run = await finish(site.client, "paused", 300)
    assert run.status.state == controller_v1.RUN_STATE_SUCCEEDED, run.status.message
    assert digests(run) == digests(calm)[:2]
    steps = [event.step async for event in site.client.runs.events("paused") if is_policy_step(event)]
    assert steps == list(range(1, STEPS + 1))


async def test_people_and_imported_preferences_feed_runs_that_share_the_services(site: Site) -> None:
    """Two runs at once, which lease the engine and the trainer in turn; both are gated by their reward model."""
    assert site.client is not None
    await site.client.runs.ensure_services()
    asked = site.run("people", iterations=1, policy__steps=1)
    asked.spec.evaluate.ClearField("scorers")
    asked.spec.feedback.ClearField("simulated")
    asked.spec.feedback.people.threshold = 0.5
    given = site.run("imported", policy__steps=1)
    given.spec.feedback.ClearField("simulated")
    given.spec.feedback.preferences.files.append(str(write_pairs(site.folder / "pairs.jsonl")))
    await site.client.runs.create(asked)
    await site.client.runs.create(given)
    await wait_for(site.client, "people", lambda event: event.kind == "waiting" and "people" in event.message)
    assert await answer_tasks(site, "people/iteration-1") >= 10
    people, imported = await finish(site.client, "people", 200), await finish(site.client, "imported", 200)
    for run in (people, imported):
        assert run.status.state == controller_v1.RUN_STATE_SUCCEEDED, run.status.message
        assert not run.status.simulated_feedback
        assert not run.status.iterations[0].HasField("heldout_score")
        assert all(result.HasField("heldout_score") for result in run.status.iterations[1:])
    first, second = imported.status.iterations[1:]
    assert first.preference_snapshot == second.preference_snapshot
    assert first.reward_model == second.reward_model
    assert people.status.iterations[1].reward_model.digest != first.reward_model.digest


async def test_a_cancelled_run_frees_its_services_and_garbage_is_found(site: Site, calm: controller_v1.Run) -> None:
    assert site.client is not None
    await site.client.runs.create(site.run("dropped"))
    await wait_for(site.client, "dropped", at_step(1, 1))
    cancelled = await site.client.runs.cancel("dropped")
    assert cancelled.status.state == controller_v1.RUN_STATE_CANCELLED
    would = await site.client.runs.collect_garbage(dry_run=True)
    assert any("dropped-1-policy" in name for name in would.freed)
    assert not any("calm-1" in name or "calm-2" in name for name in would.freed if "policy-5" in name)
    assert (await site.client.runs.collect_garbage()).freed == would.freed
    assert (await site.client.runs.collect_garbage(dry_run=True)).freed == []
    folder = Path(calm.status.promoted.uri.removeprefix("file://"))
    assert weights_digest(folder) == calm.status.promoted.digest


async def test_sigterm_pauses_the_run_at_a_durable_point_and_ends_every_service(
    site: Site, calm: controller_v1.Run
) -> None:
    assert site.client is not None
    await site.client.runs.create(site.run("terminated", iterations=1))
    await wait_for(site.client, "terminated", at_step(1, 2))
    assert await site.controller.stop() == 0
    assert discovery.addresses(site.state_dir) == {}
    store = Store(open_database(database(site.state_dir)))
    run = await store.get_run("terminated")
    last = (await store.events("terminated", 0, 1000))[-1]
    await store.close()
    assert (run.status.state, last.kind) == (controller_v1.RUN_STATE_PAUSED, "paused")
    assert "Traceback" not in site.controller.log()


def write_pairs(path: Path) -> Path:
    """40 preferences as JSONL."""
    lines = [
        {"prompt": f"How was day {number}?", "chosen": f"it was a happy day {number}", "rejected": f"sad {number}"}
        for number in range(40)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


async def answer_tasks(site: Site, queue: str) -> int:
    """A person answers until no task is left; returns how many."""
    preference = discovery.read(site.state_dir, "preference")
    assert preference is not None
    person = preference_v1.Annotator(annotator_id="ann", kind=preference_v1.ANNOTATOR_KIND_HUMAN)
    count = 0
    async with accord.Client(preference=preference.address) as client:
        while (lease := await client.preferences.lease_task(person, queue=queue)) is not None:
            better, worse = sorted(lease.completions, key=lambda answer: (len(answer.text), answer.text))
            feedback = preference_v1.Feedback(
                prompt_id=lease.task.prompt_id,
                annotator=person,
                task_id=lease.task.task_id,
                comparison=preference_v1.Comparison(chosen_id=better.completion_id, rejected_id=worse.completion_id),
            )
            await client.preferences.submit(feedback, lease_id=lease.lease_id)
            count += 1
    return count


def is_policy_step(event: controller_v1.RunEvent) -> bool:
    """Whether an event tells of a step of the policy."""
    return event.kind == "step" and event.stage == POLICY


def at_step(iteration: int, step: int) -> Callable[[controller_v1.RunEvent], bool]:
    """Whether an event is of this policy step."""
    return lambda event: is_policy_step(event) and (event.iteration, event.step) == (iteration, step)


def digests(run: controller_v1.Run) -> list[str]:
    """The weights of base and candidates."""
    return [result.policy.digest for result in run.status.iterations]


async def experience(site: Site, run_id: str) -> Sequence[tuple[str, list[tuple[str, list[int], float]]]]:
    """What the policy learnt from, as recorded: by ledger key the prompts, answers and scores."""
    store = Store(open_database(database(site.state_dir)))
    try:
        ledger = await Ledger.load(store, run_id, site.state_dir)
        names = [name for name in ledger.names() if name.endswith("/experience")]
        assert len(names) == 2 * STEPS
        assert len(os.listdir(site.state_dir / "runs" / run_id / "1" / "policy")) == STEPS
        found = []
        for name in names:
            scored = await ledger.read(name, trainer_v1.ScoredSample) or []
            found.append(
                (name, [(each.sample.prompt_id, list(each.sample.response_token_ids), each.score) for each in scored])
            )
        return found
    finally:
        await store.close()
