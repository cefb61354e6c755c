"""Edits of a run's spec: what may change is recorded and asks for a swap; what may not is refused by name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.controller import controller_client, open_store

import accord
from accord.controller import v1 as controller_v1
from accord.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from accord.runfile import load_edits
from accord_controller.clients.rollout_services import initial_services
from accord_controller.spec.defaults import resolve


@pytest.fixture
async def client(demo_run: controller_v1.Run, tmp_path: Path) -> AsyncIterator[accord.Client]:
    async with paused(demo_run, tmp_path / "state") as found:
        yield found


@asynccontextmanager
async def paused(demo_run: controller_v1.Run, state_dir: Path) -> AsyncIterator[accord.Client]:
    """A controller with the run, which another controller was driving."""
    status = controller_v1.RunStatus(state=controller_v1.RUN_STATE_RUNNING, resolved_spec=resolve(demo_run.spec))
    status.rollout.CopyFrom(initial_services(status.resolved_spec))
    state_dir.mkdir()
    async with open_store(state_dir) as store:
        await store.create_run("first", controller_v1.Run(run_id="demo", spec=demo_run.spec, status=status))
    async with controller_client(state_dir, launcher="local") as found:
        yield found


async def edit(client: accord.Client, *assignments: str, request_id: str | None = None) -> controller_v1.Run:
    return await client.runs.update(*load_edits("demo", assignments), request_id=request_id)


async def test_named_fields_are_edited_and_ask_for_a_swap_once(
    client: accord.Client, demo_run: controller_v1.Run
) -> None:
    edited = await edit(client, "rollout.engine=vllm", "rollout.engineOptions.kv_cache_gib=0.5", request_id="one")
    assert edited.spec.rollout.engine == "vllm"
    assert edited.spec.model == demo_run.spec.model, "only what was named is taken"
    assert edited.status.resolved_spec.rollout.engine == "vllm"
    assert edited.status.resolved_spec.rollout.max_new_tokens == 32
    (swap,) = edited.status.swaps
    assert (swap.state, swap.services.engine) == (controller_v1.SWAP_STATE_PENDING, "vllm")
    assert dict(swap.services.engine_options) == {"kv_cache_gib": 0.5}
    assert swap.replaces.engine == "transformers"
    assert edited.status.rollout.engine == "transformers", "the candidate has not passed yet"
    kinds = [event.kind async for event in client.runs.events("demo")]
    assert kinds[-2:] == ["swap_asked", "edited"]
    again = await edit(client, "rollout.engine=vllm", "rollout.engineOptions.kv_cache_gib=0.5")
    assert len(again.status.swaps) == 1
    assert (await edit(client, "rollout.engine=vllm", request_id="three")).status.swaps == again.status.swaps
    with pytest.raises(FailedPrecondition) as busy:
        await edit(client, "rollout.replicas=2")
    assert busy.value.reason == "SWAP_UNDER_WAY"


async def test_the_whole_spec_is_compared_and_only_what_differs_is_edited(
    client: accord.Client, demo_run: controller_v1.Run
) -> None:
    unchanged = await client.runs.update(demo_run)
    assert not unchanged.status.swaps
    demo_run.spec.rollout.max_new_tokens = 32  # the default
    assert not (await client.runs.update(demo_run)).status.swaps
    demo_run.spec.rollout.replicas = 2
    edited = await client.runs.update(demo_run)
    assert edited.spec == demo_run.spec
    assert [(swap.services.engine, swap.services.replicas) for swap in edited.status.swaps] == [("transformers", 2)]
    assert len((await client.runs.update(demo_run)).status.swaps) == 1
    # The same run asked for again is the one as edited.
    assert (await client.runs.create(demo_run)).etag == edited.etag
    demo_run.spec.rollout.replicas = 3
    with pytest.raises(AlreadyExists):
        await client.runs.create(demo_run)


async def test_what_may_not_change_is_refused_by_name_and_nothing_is_edited(
    client: accord.Client, demo_run: controller_v1.Run
) -> None:
    before = await client.runs.get("demo")
    demo_run.spec.rollout.replicas, demo_run.spec.policy.steps, demo_run.spec.rollout.temperature = 2, 5, 0.5
    with pytest.raises(InvalidArgument, match=r"policy\.steps, rollout\.temperature") as caught:
        await client.runs.update(demo_run)
    assert caught.value.reason == "NOT_EDITABLE"
    assert {violation.field for violation in caught.value.violations} == {
        "run.spec.policy.steps",
        "run.spec.rollout.temperature",
    }
    for assignment in ("iterations=9", "feedback.simulated.scorers=[{name: length}]", "rollout.maxNewTokens=8"):
        with pytest.raises(InvalidArgument) as fixed:
            await edit(client, assignment)
        assert fixed.value.reason == "NOT_EDITABLE"
    with pytest.raises(InvalidArgument) as engine:
        await edit(client, "rollout.engine=no-such")
    assert [violation.field for violation in engine.value.violations] == ["run.spec.rollout.engine"]
    with pytest.raises(InvalidArgument, match="at least 1"):
        await edit(client, "rollout.replicas=-1")
    with pytest.raises(InvalidArgument) as scaled:
        await edit(client, "rollout.autoscale.maxReplicas=4")
    assert scaled.value.reason == "NOT_EDITABLE"
    assert await client.runs.get("demo") == before
    with pytest.raises(NotFound):
        await client.runs.update(controller_v1.Run(run_id="other", spec=demo_run.spec))
    with pytest.raises(Aborted, match="has changed"):
        await client.runs.update(demo_run, etag="0")


async def test_where_pods_go_may_be_edited_and_swaps_nothing_but_how_many_train_may_not(
    client: accord.Client, demo_run: controller_v1.Run
) -> None:
    demo_run.spec.placement.trainer.node_selector["gpu"] = "h100"
    edited = await client.runs.update(demo_run)
    assert edited.spec == demo_run.spec
    assert edited.status.resolved_spec.placement.trainer.node_selector == {"gpu": "h100"}
    assert not edited.status.swaps
    demo_run.spec.placement.trainer.priority_class = "training"
    assert (await client.runs.update(demo_run)).spec == demo_run.spec
    demo_run.spec.placement.trainer_ranks = 2
    with pytest.raises(InvalidArgument, match=r"placement\.trainer_ranks cannot be changed") as fixed:
        await client.runs.update(demo_run)
    assert fixed.value.reason == "NOT_EDITABLE"
    demo_run.spec.ClearField("placement")
    assert not (await client.runs.update(demo_run)).status.resolved_spec.HasField("placement")


async def test_a_run_that_is_over_is_not_edited_but_the_same_spec_again_is_no_edit(
    client: accord.Client, demo_run: controller_v1.Run
) -> None:
    await client.runs.cancel("demo")
    assert (await client.runs.update(demo_run)).status.state == controller_v1.RUN_STATE_CANCELLED
    demo_run.spec.rollout.replicas = 2
    with pytest.raises(FailedPrecondition) as over:
        await client.runs.update(demo_run)
    assert over.value.reason == "RUN_ENDED"


async def test_where_nothing_starts_services_an_engine_cannot_be_edited_in(
    demo_run: controller_v1.Run, tmp_path: Path
) -> None:
    async with controller_client(tmp_path / "state") as client:
        await client.runs.create(demo_run)
        with pytest.raises(FailedPrecondition) as nothing:
            await edit(client, "rollout.engine=vllm")
        assert nothing.value.reason == "NO_LAUNCHER"


async def test_replicas_are_not_edited_past_the_most_that_the_run_scales_to(
    demo_run: controller_v1.Run, tmp_path: Path
) -> None:
    demo_run.spec.rollout.autoscale.max_replicas = 3
    async with paused(demo_run, tmp_path / "state") as client:
        with pytest.raises(InvalidArgument) as most:
            await edit(client, "rollout.replicas=4")
        assert [violation.field for violation in most.value.violations] == ["run.spec.rollout.autoscale.max_replicas"]
        assert (await edit(client, "rollout.replicas=3")).status.swaps[0].services.replicas == 3
