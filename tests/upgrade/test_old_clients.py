"""Programs written for each release against today's services: every call of the release does what it did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.loop import tiny_run, write_prompts
from tests.support.released import Contract, OldClient, contracts
from tests.support.reward import make_reward_model
from tests.support.rollout import weights_ref
from tests.support.site import controller, services

from accord.preference import v1 as preference_v1

pytestmark = [pytest.mark.system, pytest.mark.timeout(420)]

ANN = {"annotator_id": "ann", "kind": preference_v1.ANNOTATOR_KIND_HUMAN}
OPTIONS = {"learning_rate": 1e-3, "warmup_updates": 0, "micro_batch_tokens": 256}
_ids = count()


@pytest.fixture(params=contracts(), ids=lambda contract: contract.name)
def contract(request: pytest.FixtureRequest) -> Contract:
    found: Contract = request.param
    return found


@pytest.fixture
async def old(contract: Contract, tmp_path: Path) -> AsyncIterator[OldClient]:
    """A client of the release and today's services."""
    async with services(tmp_path / "state") as site, controller(site.folder, site.addresses) as address:
        client = OldClient(contract, {**site.addresses, "controller": address})
        try:
            yield client
        finally:
            await client.close()


async def test_a_program_of_a_release_makes_every_call_of_its_contract(
    contract: Contract, old: OldClient, tiny_folder: Path, tmp_path: Path
) -> None:
    await feedback_is_gathered(old)
    await a_reward_model_scores(old, tmp_path)
    await a_policy_takes_a_step(old, tiny_folder)
    await a_run_goes_to_its_end(old, tiny_folder, tmp_path)
    assert old.called == set(contract.methods), "each call that was released is made above"


async def test_an_error_reaches_a_program_of_a_release_as_it_did(old: OldClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await old.call("preference", "PreferenceService/CreatePrompts")
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "request_id" in str(raised.value.details())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await old.call("controller", "RunService/GetRun", run_id="nobody")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def new_id() -> str:
    """A request_id that no other call has."""
    return f"old-{next(_ids)}"


def turn(text: str) -> dict[str, Any]:
    """A person says `text`."""
    return {"messages": [{"role": "user", "content": text}]}


async def feedback_is_gathered(old: OldClient) -> None:
    """Prompts, answers, a task that a person answers, an import, snapshots and exports of it all."""

    async def call(method: str, *requests: dict[str, Any], **fields: Any) -> Any:
        return await old.call("preference", f"PreferenceService/{method}", *requests, **fields)

    prompts = [{"conversation": turn(f"question {number}"), "source": "old"} for number in range(3)]
    made = (await call("CreatePrompts", request_id=new_id(), prompts=prompts)).prompts
    assert len({prompt.prompt_id for prompt in made}) == 3
    assert len((await call("ListPrompts", source="old")).prompts) == 3
    answers = [{"prompt_id": made[0].prompt_id, "text": text} for text in ("good", "bad")]
    good, bad = (await call("CreateCompletions", request_id=new_id(), completions=answers)).completions
    task = {
        "prompt_id": made[0].prompt_id,
        "completion_ids": [good.completion_id, bad.completion_id],
        "kind": preference_v1.TASK_KIND_COMPARISON,
        "queue": "old",
        "redundancy": 1,
    }
    tasks = (await call("CreateTasks", request_id=new_id(), tasks=[task, {**task, "queue": "rest"}])).tasks
    lease = (await call("LeaseTask", request_id=new_id(), annotator=ANN, queue="old")).lease
    assert lease.task.task_id == tasks[0].task_id
    await call("ReleaseTask", request_id=new_id(), lease_id=lease.lease_id)
    lease = (await call("LeaseTask", request_id=new_id(), annotator=ANN, queue="old")).lease
    feedback = {
        "prompt_id": made[0].prompt_id,
        "annotator": ANN,
        "task_id": lease.task.task_id,
        "comparison": {"chosen_id": good.completion_id, "rejected_id": bad.completion_id},
    }
    given = await call("SubmitFeedback", request_id=new_id(), feedback=feedback, lease_id=lease.lease_id)
    assert given.feedback.comparison.chosen_id == good.completion_id
    queue = await call("GetQueue", queue="old")
    assert (queue.done_tasks, queue.open_tasks, queue.feedback) == (1, 0, 1)
    assert (await call("CancelTasks", request_id=new_id(), queue="rest")).cancelled == 1
    record = {
        "prompt": turn("imported"),
        "completions": [{"local_id": "a", "text": "yes"}, {"local_id": "b", "text": "no"}],
        "comparison": {"chosen_id": "a", "rejected_id": "b"},
        "annotator": ANN,
        "source": "old",
    }
    assert (await call("ImportRecords", {"request_id": new_id()}, {"records": [record]})).feedback == 1
    kind = preference_v1.SNAPSHOT_KIND_PREFERENCES
    snapshot = (await call("CreateSnapshot", request_id=new_id(), kind=kind)).snapshot
    assert snapshot.train_records + snapshot.heldout_records == 2
    assert (await call("GetSnapshot", digest=snapshot.digest)).snapshot == snapshot
    assert [one.digest for one in (await call("ListSnapshots")).snapshots] == [snapshot.digest]
    for method, fields in (("ExportSnapshot", {"digest": snapshot.digest}), ("ExportRecords", {"kind": kind})):
        found = [
            record
            async for page in old.stream("preference", f"PreferenceService/{method}", **fields)
            for record in page.records
        ]
        assert {answer.text for record in found for answer in record.completions} == {"good", "bad", "yes", "no"}
    stats = await call("GetStats")
    assert (stats.prompts, stats.comparisons) == (4, 2)


async def a_reward_model_scores(old: OldClient, folder: Path) -> None:
    """Rules and a model."""
    listed = await old.call("reward", "RewardService/ListScorers")
    assert {"length", "model"} <= {scorer.name for scorer in listed.scorers}
    weights = old.contract.known(make_reward_model(folder))
    loaded = await old.call("reward", "RewardService/LoadModel", request_id=new_id(), weights=weights)
    scorers = [{"name": "length", "weight": 1.0}, {"name": "model", "model_digest": loaded.digest}]
    items = [{"item_id": "x", "prompt": turn("hi"), "response": "hello there"}]
    [result] = (await old.call("reward", "RewardService/Score", scorers=scorers, items=items)).results
    assert result.HasField("score"), result.failure.message
    assert [part.name for part in result.score.parts] == ["length", "model"]
    assert result.score.value == pytest.approx(sum(part.weighted for part in result.score.parts))
    await old.call("reward", "RewardService/UnloadModel", request_id=new_id(), digest=loaded.digest)


async def a_policy_takes_a_step(old: OldClient, model: Path) -> None:
    """PPO as a program does it by itself: draw, score, step, put the new weights in force."""
    lease = {"holder": "old", "ttl": {"seconds": 60}}
    engine = (await old.call("rollout", "RolloutService/AcquireLease", **lease)).lease.token
    trainer = (await old.call("trainer", "TrainerService/AcquireLease", **lease)).lease.token

    async def at_engine(method: str, **fields: Any) -> Any:
        return await old.call("rollout", f"RolloutService/{method}", **fields)

    async def at_trainer(method: str, *requests: dict[str, Any], **fields: Any) -> Any:
        return await old.call("trainer", f"TrainerService/{method}", *requests, **fields)

    base = old.contract.known(weights_ref(model))
    await at_engine("UpdateWeights", request_id=new_id(), weights=base, lease_token=engine)
    assert (await at_engine("GetStatus")).digest == base.digest
    training = {"training_id": "old", "algorithm": "ppo", "init": base, "options": OPTIONS, "compute_dtype": "float32"}
    made = await at_trainer("CreateTraining", request_id=new_id(), training=training, lease_token=trainer)
    assert made.training.version == 0
    request = {
        "request_id": new_id(),
        "prompts": [{"prompt_id": f"p{number}", "conversation": turn(f"say {number}")} for number in range(2)],
        "n": 2,
        "sampling": {"max_new_tokens": 6},
        "version": 0,
        "lease_token": engine,
    }
    drawn = [answer async for answer in old.stream("rollout", "RolloutService/Generate", **request)]
    samples = sorted((answer.sample for answer in drawn), key=lambda sample: sample.index)
    assert [sample.index for sample in samples] == [0, 1, 2, 3]
    scored = [{"sample": sample, "score": float(len(sample.text))} for sample in samples]
    put = await at_trainer(
        "PutExperience", {"training_id": "old", "chunk": {"samples": scored}, "lease_token": trainer}
    )
    assert put.records == 4
    measured = (await at_trainer("Evaluate", training_id="old", batch_id=put.batch_id)).metrics
    assert measured["score"] == pytest.approx(sum(len(sample.text) for sample in samples) / 4)
    step = {"training_id": "old", "batch_id": put.batch_id, "parent_version": 0, "lease_token": trainer}
    result = (await at_trainer("Step", request_id=new_id(), **step)).result
    assert result.version == 1
    weights = (await at_trainer("Publish", request_id=new_id(), training_id="old", lease_token=trainer)).weights
    assert weights.digest == result.digest != base.digest
    await at_engine("UpdateWeights", request_id=new_id(), weights=weights, lease_token=engine)
    assert (await at_engine("GetStatus")).digest == weights.digest
    artifact = weights.uri.rpartition("/")[2]
    files = (await old.call("trainer", "ArtifactService/GetArtifact", artifact_id=artifact)).files
    config = next(file for file in files if file.path == "config.json")
    pieces = old.stream("trainer", "ArtifactService/ReadFile", artifact_id=artifact, path="config.json")
    assert len(b"".join([piece.data async for piece in pieces])) == config.size_bytes
    assert (await at_trainer("Checkpoint", request_id=new_id(), training_id="old", lease_token=trainer)).version == 1
    assert (await at_trainer("GetTraining", training_id="old")).training.checkpoint_version == 1
    assert [one.training_id for one in (await at_trainer("ListTrainings")).trainings] == ["old"]
    assert "ppo" in (await at_trainer("GetStatus")).algorithms
    would = await at_trainer("FreeArtifacts", request_id=new_id(), dry_run=True, lease_token=trainer)
    assert would.freed_bytes > 0
    await at_trainer("DeleteTraining", request_id=new_id(), training_id="old", lease_token=trainer)
    await at_engine("ReleaseLease", token=engine)
    await at_trainer("ReleaseLease", token=trainer)


async def a_run_goes_to_its_end(old: OldClient, model: Path, folder: Path) -> None:
    """A run, paused and resumed on the way; another that is cancelled; the policy that came out."""

    async def call(method: str, **fields: Any) -> Any:
        return await old.call("controller", f"RunService/{method}", **fields)

    def run_of(run_id: str) -> Any:
        changes = {"iterations": 1, "policy__steps": 2, "evaluate__min_gain": -100.0}
        return old.contract.known(tiny_run(run_id, model, write_prompts(folder / "prompts.jsonl"), **changes))

    assert set((await call("EnsureServices")).addresses) == {"rollout", "reward", "preference", "trainer"}
    made = (await call("CreateRun", request_id=new_id(), run=run_of("old-run"))).run
    assert made.run_id == "old-run"
    await call("PauseRun", request_id=new_id(), run_id="old-run")
    async for _ in old.stream("controller", "RunService/WatchRun", run_id="old-run"):
        continue  # it ends when the run is not at work any more
    await call("ResumeRun", request_id=new_id(), run_id="old-run")
    kinds = [answer.event.kind async for answer in old.stream("controller", "RunService/WatchRun", run_id="old-run")]
    assert kinds[-1] == "succeeded"
    assert {"paused", "resumed", "step"} <= set(kinds)
    status = (await call("GetRun", run_id="old-run")).run.status
    assert [result.iteration for result in status.iterations] == [0, 1]
    assert len((await call("ListEvents", run_id="old-run", page_size=1000)).events) == len(kinds)
    await call("CreateRun", request_id=new_id(), run=run_of("old-dropped"))
    await call("CancelRun", request_id=new_id(), run_id="old-dropped")
    assert {run.run_id for run in (await call("ListRuns")).runs} == {"old-run", "old-dropped"}
    models = (await old.call("controller", "ModelService/ListModels")).models
    current = next(one.name for one in models if one.current)
    found = await old.call("controller", "ModelService/GetModel", name=f"models/{current}")
    assert found.model.weights.digest == status.promoted.digest
    await call("CollectGarbage", request_id=new_id(), dry_run=True)
