"""A request_id makes a call safe to repeat, and only that call: never one of another method."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.support.controller import add_run, open_store
from tests.support.rollout import rollout_service, weights_ref
from tests.support.tiny import make_tiny_model

from accord.channel import open_channel
from accord.controller import v1 as controller_v1
from accord.errors import AlreadyExists, FailedPrecondition
from accord.preference import v1 as preference_v1
from accord.rollout import v1 as rollout_v1
from accord.trainer import v1 as trainer_v1
from accord_controller.service import build as build_controller
from accord_controller.settings import ControllerSettings
from accord_controller.store.store import Commit
from accord_preference.service import build as build_preference
from accord_preference.settings import PreferenceSettings
from accord_runtime.serving.idempotency import OnceInMemory, OnceUnderLease
from accord_runtime.serving.leases import LeaseTable
from accord_runtime.serving.server import serving


async def test_once_attaches_keeps_forgets_failures_and_refuses_another_content() -> None:
    once, calls = OnceInMemory(capacity=2), 0

    async def make() -> int:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.05)
        if calls == 3:
            raise ValueError("third")
        return calls

    request = rollout_v1.ReleaseLeaseRequest(token="a")
    assert await asyncio.gather(once.run("r", request, make), once.run("r", request, make)) == [1, 1]
    assert await once.run("r", request, make) == 1
    with pytest.raises(AlreadyExists) as reused:
        await once.run("r", rollout_v1.ReleaseLeaseRequest(token="b"), make)
    assert reused.value.reason == "REQUEST_ID_REUSED"
    assert await once.run("s", request, make) == 2
    with pytest.raises(ValueError, match="third"):
        await once.run("t", request, make)
    assert await once.run("t", request, make) == 4


async def test_once_lets_work_go_on_when_its_caller_goes_away() -> None:
    once, done = OnceInMemory(), asyncio.Event()

    async def make() -> str:
        await asyncio.sleep(0.1)
        done.set()
        return "made"

    request = rollout_v1.ReleaseLeaseRequest(token="a")
    caller = asyncio.create_task(once.run("r", request, make))
    await asyncio.sleep(0.01)
    caller.cancel()
    assert await once.run("r", request, make) == "made"
    assert done.is_set()


async def test_a_request_id_that_another_method_has_used_is_independent_in_memory() -> None:
    once = OnceInMemory()

    async def say(word: str) -> str:
        return word

    # The fields are the same, byte for byte.
    prepare = rollout_v1.ActivateWeightsRequest(request_id="x", version=5)
    discard = rollout_v1.DiscardWeightsRequest(request_id="x", version=5)
    assert prepare.SerializeToString() == discard.SerializeToString()
    assert await once.run("x", prepare, lambda: say("activated")) == "activated"
    assert await once.run("x", discard, lambda: say("discarded")) == "discarded"


async def test_a_repeat_under_a_renewed_lease_gets_the_result_and_one_without_the_lease_is_refused() -> None:
    leases, calls = LeaseTable(clock=lambda: 0.0), 0
    once = OnceUnderLease(leases)

    async def make() -> int:
        nonlocal calls
        calls += 1
        return calls

    first = leases.acquire("runs/a", 60)
    assert (
        await once.run(trainer_v1.PublishRequest(request_id="r", training_id="t", lease_token=first.token), make) == 1
    )
    leases.release(first.token)
    second = leases.acquire("runs/a", 60)
    repeated = trainer_v1.PublishRequest(request_id="r", training_id="t", lease_token=second.token)
    assert await once.run(repeated, make) == 1
    assert repeated.lease_token == second.token, "the request of the caller is left as it is"
    with pytest.raises(FailedPrecondition) as held:
        await once.run(trainer_v1.PublishRequest(request_id="r", training_id="t"), make)
    assert held.value.reason == "LEASE_HELD"
    with pytest.raises(AlreadyExists):
        await once.run(trainer_v1.PublishRequest(request_id="r", training_id="u", lease_token=second.token), make)


async def test_a_run_is_cancelled_by_the_request_id_that_resumed_it(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        run = await add_run(store)
        run.status.state = controller_v1.RUN_STATE_PAUSED
        await store.commit("demo", Commit(status=run.status))
    settings = ControllerSettings(state_dir=tmp_path, launcher="none", start_seconds=0.2, pause_seconds=2)
    async with (
        serving(await build_controller(settings), settings) as address,
        open_channel(address) as channel,
    ):
        stub = controller_v1.RunServiceStub(channel)
        await stub.ResumeRun(controller_v1.ResumeRunRequest(request_id="x", run_id="demo"), timeout=30)
        ended = await stub.CancelRun(controller_v1.CancelRunRequest(request_id="x", run_id="demo"), timeout=30)
        assert ended.run.status.state == controller_v1.RUN_STATE_CANCELLED


async def test_weights_are_updated_by_the_request_id_that_prepared_them(tmp_path: Path, tiny_folder: Path) -> None:
    ref = weights_ref(make_tiny_model(tmp_path / "other", seed=3), version=1)
    async with rollout_service(tmp_path, model=tiny_folder) as (stub, _):
        await stub.PrepareWeights(rollout_v1.PrepareWeightsRequest(request_id="z", weights=ref))
        await stub.UpdateWeights(rollout_v1.UpdateWeightsRequest(request_id="z", weights=ref))
        assert (await stub.GetStatus(rollout_v1.GetStatusRequest())).version == 1


async def test_weights_are_discarded_by_the_request_id_that_activated_that_version(
    tmp_path: Path, tiny_folder: Path
) -> None:
    ref = weights_ref(make_tiny_model(tmp_path / "other", seed=3), version=5)
    async with rollout_service(tmp_path, model=tiny_folder) as (stub, _):
        await stub.PrepareWeights(rollout_v1.PrepareWeightsRequest(request_id="a", weights=ref))
        await stub.ActivateWeights(rollout_v1.ActivateWeightsRequest(request_id="y", version=5))
        await stub.PrepareWeights(rollout_v1.PrepareWeightsRequest(request_id="b", weights=ref))
        await stub.DiscardWeights(rollout_v1.DiscardWeightsRequest(request_id="y", version=5))
        assert not (await stub.GetStatus(rollout_v1.GetStatusRequest())).prepared


async def test_the_preference_service_refuses_a_request_id_that_another_method_has_used(tmp_path: Path) -> None:
    settings = PreferenceSettings(state_dir=tmp_path)
    async with (
        serving(await build_preference(settings), settings) as address,
        open_channel(address) as channel,
    ):
        stub = preference_v1.PreferenceServiceStub(channel)
        cancel = preference_v1.CancelTasksRequest(request_id="x", queue="q")
        await stub.CancelTasks(cancel, timeout=10)
        with pytest.raises(AlreadyExists) as reused:
            await stub.DeletePrompts(preference_v1.DeletePromptsRequest(request_id="x", prompt_ids=["q"]), timeout=10)
        assert reused.value.reason == "REQUEST_ID_REUSED"
        assert reused.value.metadata["request_id"] == "x"
        assert (await stub.CancelTasks(cancel, timeout=10)).cancelled == 0
