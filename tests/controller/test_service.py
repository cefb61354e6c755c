"""The controller over gRPC, without services to work with: what it refuses, remembers and answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.controller import add_run, controller_client, open_store

from accord.controller import v1 as controller_v1
from accord.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from accord_controller.service import build
from accord_controller.settings import ControllerSettings

pytestmark = pytest.mark.process


async def test_a_wrong_spec_is_refused_with_its_fields_and_nothing_is_stored(
    demo_run: controller_v1.Run, tmp_path: Path
) -> None:
    demo_run.spec.model, demo_run.spec.policy.steps = str(tmp_path / "nowhere"), -1
    async with controller_client(tmp_path / "state") as client:
        with pytest.raises(InvalidArgument) as caught:
            await client.runs.create(demo_run)
        assert {violation.field for violation in caught.value.violations} == {
            "run.spec.model",
            "run.spec.policy.steps",
        }
        assert [found async for found in client.runs.list()] == []
        with pytest.raises(NotFound, match="No run named demo"):
            await client.runs.get("demo")


async def test_a_run_whose_services_cannot_be_had_fails_visibly(demo_run: controller_v1.Run, tmp_path: Path) -> None:
    async with controller_client(tmp_path / "state") as client:
        created = await client.runs.create(demo_run)
        assert created.status.resolved_spec.iterations == 1
        assert created.status.simulated_feedback
        events = [event async for event in client.runs.watch("demo", timeout=30)]
        assert events[-1].kind == "failed"
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        failed = await client.runs.get("demo")
        assert failed.status.state == controller_v1.RUN_STATE_FAILED
        assert "--rollout-address" in failed.status.message
        again = [event async for event in client.runs.events("demo", after_sequence=1)]
        assert again == events[1:]
        # It may be tried again, and then cancelled for good.
        await client.runs.resume("demo")
        kinds = [event.kind async for event in client.runs.watch("demo", after_sequence=len(events), timeout=30)]
        assert (kinds[0], kinds[-1]) == ("resumed", "failed")
        with pytest.raises(Aborted, match="has changed"):
            await client.runs.cancel("demo", etag=created.etag)
        now = await client.runs.get("demo")
        cancelled = await client.runs.cancel("demo", etag=now.etag)
        assert cancelled.status.state == controller_v1.RUN_STATE_CANCELLED
        assert (await client.runs.cancel("demo")).etag == cancelled.etag
        with pytest.raises(FailedPrecondition, match="was cancelled and cannot be resumed"):
            await client.runs.resume("demo")


async def test_the_same_run_again_is_the_same_run_and_another_of_its_name_is_refused(
    demo_run: controller_v1.Run, tmp_path: Path
) -> None:
    async with controller_client(tmp_path / "state") as client:
        first = await client.runs.create(demo_run, request_id="once")
        async for _ in client.runs.watch("demo", timeout=30):
            continue
        assert (await client.runs.create(demo_run, request_id="twice")).create_time == first.create_time
        demo_run.spec.seed = 9
        with pytest.raises(AlreadyExists, match="different spec"):
            await client.runs.create(demo_run)
        assert [found.run_id async for found in client.runs.list()] == ["demo"]


async def test_a_run_that_a_killed_controller_left_is_paused_and_says_so(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await add_run(store)
    async with controller_client(tmp_path) as client:
        found = await client.runs.get("demo")
        assert found.status.state == controller_v1.RUN_STATE_PAUSED
        assert "interrupted" in found.status.message
        assert [event.kind async for event in client.runs.watch("demo", timeout=10)] == ["paused"]


async def test_pages_go_through_everything_newest_first(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for number in range(5):
            await add_run(store, f"run-{number}")
        page, following = await store.list_runs(2)
        rest, end = await store.list_runs(10, following)
    assert [run.run_id for run in (*page, *rest)] == [f"run-{number}" for number in (4, 3, 2, 1, 0)]
    assert end is None


async def test_two_controllers_do_not_share_a_state_folder(tmp_path: Path) -> None:
    async with controller_client(tmp_path):
        with pytest.raises(FailedPrecondition, match=r"already uses"):
            await build(ControllerSettings(state_dir=tmp_path))
    async with controller_client(tmp_path) as client:
        assert [run async for run in client.runs.list()] == []


async def test_unknown_names_and_bad_pages_are_refused(tmp_path: Path) -> None:
    async with controller_client(tmp_path) as client:
        with pytest.raises(NotFound, match="No model named gone"):
            await client.models.get("gone")
        with pytest.raises(InvalidArgument, match="unknown service"):
            await client.runs.ensure_services(["nothing"])
        with pytest.raises(FailedPrecondition, match="--reward-address"):
            await client.runs.ensure_services(["reward"])
