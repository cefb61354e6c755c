"""Today's SDK and controller against services of each release: what the release has works, what it lacks is said."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.support.loop import finish, tiny_run, write_prompts
from tests.support.released import Contract, contracts, older
from tests.support.rollout import weights_ref
from tests.support.site import controller, services

import accord
from accord.artifact import v1 as artifact_v1
from accord.controller import v1 as controller_v1
from accord.errors import Unimplemented
from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.rollout import v1 as rollout_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord.usage import v1 as usage_v1

pytestmark = [pytest.mark.system, pytest.mark.timeout(420)]

FILES = (
    artifact_v1.ARTIFACT_SERVICE,
    controller_v1.RUN_SERVICE,
    preference_v1.ANNOTATOR_SERVICE,
    preference_v1.PREFERENCE_SERVICE,
    reward_v1.REWARD_SERVICE,
    rollout_v1.ROLLOUT_SERVICE,
    trainer_v1.TRAINER_SERVICE,
    usage_v1.USAGE_SERVICE,
)
ANN = preference_v1.Annotator(annotator_id="ann", kind=preference_v1.ANNOTATOR_KIND_HUMAN)
# A call of today's SDK for each RPC that some release does not have; what the request says does not matter there.
LATER: dict[str, Callable[[accord.Client], Awaitable[object]]] = {
    "RolloutService/PrepareWeights": lambda c: c.rollout.prepare_weights(types_v1.WeightsRef(uri="x", digest="0" * 64)),
    "RolloutService/ActivateWeights": lambda c: c.rollout.activate_weights(1),
    "RolloutService/DiscardWeights": lambda c: c.rollout.discard_weights(1),
    "UsageService/GetUsage": lambda c: c.usage.of("rollout"),
    "PreferenceService/RenewLease": lambda c: c.preferences.renew_lease("x"),
    "PreferenceService/FlagTask": lambda c: c.preferences.flag_task("x", preference_v1.FLAG_REASON_UNCLEAR),
    "PreferenceService/ListFlags": lambda c: first(c.preferences.flags()),
    "PreferenceService/ResolveTask": lambda c: c.preferences.resolve_task("x", preference_v1.TASK_RESOLUTION_CANCEL),
    "PreferenceService/RetractFeedback": lambda c: c.preferences.retract("x", ANN),
    "PreferenceService/ListFeedback": lambda c: first(c.preferences.feedback()),
    "PreferenceService/GetCompletion": lambda c: c.preferences.completion("x"),
    "PreferenceService/DeletePrompts": lambda c: c.preferences.delete_prompts(["x"]),
    "PreferenceService/GetSnapshotOrigins": lambda c: c.preferences.snapshot_origins("x"),
    "PreferenceService/ListSnapshotUses": lambda c: c.preferences.snapshot_uses(prompt_id="x"),
    "AnnotatorService/RegisterAnnotator": lambda c: c.annotators.register(ANN),
    "AnnotatorService/GetAnnotator": lambda c: c.annotators.get(ANN),
    "AnnotatorService/ListAnnotators": lambda c: first(c.annotators.list()),
    "AnnotatorService/ExcludeAnnotator": lambda c: c.annotators.exclude(ANN, reason="x"),
    "AnnotatorService/ReinstateAnnotator": lambda c: c.annotators.reinstate(ANN),
    "AnnotatorService/WithdrawAnnotator": lambda c: c.annotators.withdraw(ANN),
    "AnnotatorService/GetQuality": lambda c: c.annotators.quality(),
    "RunService/SwapEngine": lambda c: c.runs.swap_engine("x", engine="transformers"),
    "RunService/UpdateRun": lambda c: c.runs.update(controller_v1.Run(run_id="x"), ["rollout.engine"]),
    "ModelService/GetModelLineage": lambda c: c.models.lineage("x"),
    "ModelService/ListTrainedModels": lambda c: c.models.trained_on(["x"]),
    "ModelService/PromoteModel": lambda c: c.models.promote("x"),
    "ModelService/RollBackModel": lambda c: c.models.roll_back("x"),
    "ModelService/ListModelChanges": lambda c: first(c.models.changes()),
}


async def first(items: AsyncIterator[object]) -> object:
    """The first, or None."""
    return await anext(items, None)


@pytest.fixture(params=contracts(), ids=lambda contract: contract.name)
def contract(request: pytest.FixtureRequest) -> Contract:
    found: Contract = request.param
    return found


@pytest.fixture
async def old_addresses(contract: Contract, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """Services of the release, all five, by name."""
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(services(tmp_path / "state"))
        real = {
            **site.addresses,
            "controller": await stack.enter_async_context(controller(site.folder, site.addresses)),
        }
        yield {name: await stack.enter_async_context(older(contract, address)) for name, address in real.items()}


@pytest.fixture
async def client(old_addresses: dict[str, str]) -> AsyncIterator[accord.Client]:
    """Today's SDK at them."""
    async with accord.Client(**old_addresses) as made:
        yield made


def test_the_sdk_is_tried_with_every_call_that_a_release_lacks() -> None:
    today = {
        f"{service.name}/{method.name}"
        for file in FILES
        for service in file.services_by_name.values()
        for method in service.methods
    }
    for contract in contracts():
        released = {path.rpartition(".")[2] for path in contract.methods}
        assert today - released <= set(LATER), contract.name


async def test_a_call_that_a_release_lacks_names_the_service_and_says_that_it_is_older(
    contract: Contract, client: accord.Client
) -> None:
    released = {path.rpartition(".")[2] for path in contract.methods}
    for name in LATER.keys() - released:
        with pytest.raises(Unimplemented) as raised:
            await LATER[name](client)
        assert raised.value.reason == "UNKNOWN_CALL", name
        assert raised.value.metadata["method"].endswith(name)
        assert "older" in raised.value.message, name
        assert raised.value.metadata["address"] in client.addresses.values()


async def test_replicas_of_a_release_and_of_today_draw_together(
    contract: Contract, old_addresses: dict[str, str], tiny_folder: Path, tmp_path: Path
) -> None:
    async with services(tmp_path / "new") as site:
        addresses = [old_addresses["rollout"], site.addresses["rollout"]]
        async with accord.Replicas(addresses) as replicas:
            weights = weights_ref(tiny_folder, version=3)
            assert await replicas.update_weights(weights) == {}
            sampling = types_v1.SamplingParams(max_new_tokens=4)
            prompts = [f"question {number}" for number in range(6)]
            answers = [answer async for answer in replicas.generate(prompts, sampling=sampling, n=2, version=3)]
        assert sorted(answer.sample.index for answer in answers) == list(range(12))
        assert {answer.sample.segments[0].digest for answer in answers} == {weights.digest}


async def test_todays_controller_takes_a_run_to_its_end_on_services_of_a_release(
    contract: Contract, old_addresses: dict[str, str], tiny_folder: Path, tmp_path: Path
) -> None:
    run = tiny_run(
        "upgraded",
        tiny_folder,
        write_prompts(tmp_path / "prompts.jsonl"),
        iterations=1,
        policy__steps=2,
        evaluate__min_gain=-100.0,
    )
    of_a_release = {name: address for name, address in old_addresses.items() if name != "controller"}
    async with controller(tmp_path / "new", of_a_release) as address, accord.Client(controller=address) as client:
        await client.runs.create(run)
        ended = await finish(client, "upgraded", 300)
    assert ended.status.state == controller_v1.RUN_STATE_SUCCEEDED, ended.status.message
    assert [result.iteration for result in ended.status.iterations] == [0, 1]
    assert ended.status.promoted.digest == ended.status.iterations[1].policy.digest


async def test_todays_sdk_drives_a_controller_of_a_release(
    client: accord.Client, tiny_folder: Path, tmp_path: Path
) -> None:
    run = tiny_run("older", tiny_folder, write_prompts(tmp_path / "prompts.jsonl"), iterations=1, policy__steps=1)
    await client.runs.create(run)
    kinds = [event.kind async for event in client.runs.watch("older", timeout=300)]
    assert kinds[-1] == "succeeded"
    assert [found.run_id async for found in client.runs.list()] == ["older"]
    assert (await client.runs.get("older")).status.state == controller_v1.RUN_STATE_SUCCEEDED
