"""What is in force in the registry: promoted and rolled back by people over gRPC, remembered, kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.controller import add_model, add_run, controller_client, open_store

from accord.controller import v1 as controller_v1
from accord.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from accord_controller.ledger.retention import find_needed
from accord_controller.store.changes import one_back

GATE, PROMOTED, BACK = (
    controller_v1.MODEL_CHANGE_KIND_GATE,
    controller_v1.MODEL_CHANGE_KIND_PROMOTED,
    controller_v1.MODEL_CHANGE_KIND_ROLLED_BACK,
)


async def three_models(state_dir: Path) -> None:
    """A run whose gate promoted the base and two policies."""
    async with open_store(state_dir) as store:
        await add_run(store)
        for iteration in range(3):
            await add_model(store, state_dir, iteration)


async def test_a_person_promotes_and_rolls_back_and_the_history_says_who_and_why(tmp_path: Path) -> None:
    await three_models(tmp_path)
    async with controller_client(tmp_path) as client:
        assert (await client.models.get("demo")).name == "demo-2"
        before = (await client.runs.get("demo")).status
        promoted = await client.models.promote("models/demo-0", reason="calmer", operator="ann")
        assert (promoted.name, promoted.current) == ("demo-0", True)
        assert [model.name async for model in client.models.list() if model.current] == ["demo-0"]
        assert (await client.models.get("demo")).name == "demo-0"
        # Back, and further back: not to and fro.
        backs = [(await client.models.roll_back("demo", operator="ann")).name for _ in range(3)]
        assert backs == ["demo-2", "demo-1", "demo-0"]
        with pytest.raises(FailedPrecondition, match="no policy before"):
            await client.models.roll_back("demo")
        # The run itself goes on from where it was.
        assert (await client.runs.get("demo")).status == before
    async with controller_client(tmp_path) as client:  # another process reads the same
        changes = [change async for change in client.models.changes("demo")]
        assert [(one.kind, one.model, one.previous) for one in reversed(changes)] == [
            (GATE, "demo-0", ""), (GATE, "demo-1", "demo-0"), (GATE, "demo-2", "demo-1"),
            (PROMOTED, "demo-0", "demo-2"),
            (BACK, "demo-2", "demo-0"), (BACK, "demo-1", "demo-2"), (BACK, "demo-0", "demo-1"),
        ]  # fmt: skip
        assert (changes[3].operator, changes[3].reason, changes[3].HasField("time")) == ("ann", "calmer", True)
        assert [change async for change in client.models.changes("other")] == []


async def test_a_request_is_answered_once_also_by_the_next_controller(tmp_path: Path) -> None:
    await three_models(tmp_path)
    for _ in range(2):
        async with controller_client(tmp_path) as client:
            for _ in range(2):
                assert (await client.models.roll_back("demo", request_id="once")).name == "demo-1"
            with pytest.raises(AlreadyExists, match="another request"):
                await client.models.roll_back("demo", request_id="once", reason="other")
            with pytest.raises(AlreadyExists, match="another request"):
                await client.models.promote("demo-2", request_id="once")
    async with controller_client(tmp_path) as client:
        for _ in range(2):
            assert (await client.models.promote("demo-2", request_id="twice")).current
        await client.models.promote("demo-2")  # in force already: nothing changes
        assert len([change async for change in client.models.changes()]) == 5


async def test_what_is_unknown_gone_changed_or_too_long_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    await three_models(tmp_path)
    (tmp_path / "weights-0").rmdir()
    async with controller_client(tmp_path) as client:
        with pytest.raises(NotFound, match="No model named demo-7") as unknown:
            await client.models.promote("demo-7")
        with pytest.raises(FailedPrecondition, match="no longer exist") as gone:
            await client.models.promote("demo-0")
        with pytest.raises(NotFound, match="No run named other"):
            await client.models.roll_back("other")
        with pytest.raises(Aborted, match="is now demo-2") as changed:
            await client.models.roll_back("demo", in_force="demo-1")
        with pytest.raises(InvalidArgument, match="reason"):
            await client.models.promote("demo-1", reason="x" * 3000)
        reasons = [caught.value.reason for caught in (unknown, gone, changed)]
        assert reasons == ["MODEL_NOT_FOUND", "WEIGHTS_GONE", "MODEL_CHANGED"]
        assert len([change async for change in client.models.changes()]) == 3


async def test_garbage_collection_keeps_active_models_and_those_to_roll_back_to(tmp_path: Path) -> None:
    await three_models(tmp_path)
    async with controller_client(tmp_path) as client:
        await client.runs.cancel("demo")
        await client.models.roll_back("demo")
    async with open_store(tmp_path) as store:
        assert {"digest-0", "digest-1", "digest-2"} <= (await find_needed(store)).digests


async def test_what_the_gate_promotes_later_is_active_and_can_be_rolled_back(tmp_path: Path) -> None:
    await three_models(tmp_path)
    async with open_store(tmp_path) as store:
        assert await store.active_model("demo") is not None
    async with controller_client(tmp_path) as client:
        await client.models.roll_back("demo")
    async with open_store(tmp_path) as store:
        await add_model(store, tmp_path, 3)
    async with controller_client(tmp_path) as client:
        assert (await client.models.get("demo")).name == "demo-3"
        assert (await client.models.roll_back("demo")).name == "demo-1"


async def test_a_new_run_starts_from_the_policy_that_is_active_when_it_is_created(tmp_path: Path) -> None:
    await three_models(tmp_path)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "hello"}\n')
    run = controller_v1.Run(run_id="next")
    run.spec.model = "models/demo"
    run.spec.prompts.files.append(str(tmp_path / "prompts.jsonl"))
    run.spec.feedback.simulated.scorers.add(name="length")
    async with controller_client(tmp_path) as client:
        await client.models.promote("demo-1")
        resolved = (await client.runs.create(run)).status.resolved_spec
        assert (resolved.model, resolved.reward_model.model) == ("models/demo-1", "models/demo-1")


def test_rolling_back_takes_promotions_away_one_by_one() -> None:
    assert one_back([]) is None
    assert one_back([("a", GATE)]) is None
    assert one_back([("a", GATE), ("b", GATE), ("a", BACK)]) is None
    assert one_back([("a", GATE), ("b", GATE), ("a", BACK), ("c", GATE)]) == "a"
    assert one_back([("a", GATE), ("b", GATE), ("a", PROMOTED)]) == "b"
