"""A run's rollout services as one, with real services on a tiny model: leased, given weights, mended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest
from tests.support.rollout import rollout_settings, weights_ref
from tests.support.tiny import make_tiny_model

from accord import discovery
from accord.channel import open_channel
from accord.controller import v1 as controller_v1
from accord.errors import FailedPrecondition, Unavailable
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_controller.clients.repair import keep_repaired
from accord_controller.clients.replica_set import ReplicaSet
from accord_controller.clients.rollout_services import rollout_set
from accord_controller.launchers.launcher import OnRestart, RolloutSet
from accord_controller.launchers.local.launcher import LocalLauncher
from accord_controller.settings import ControllerSettings
from accord_rollout.service import build
from accord_runtime.serving.server import serving

pytestmark = pytest.mark.process

SAMPLING = types_v1.SamplingParams(max_new_tokens=6)


class External:
    """External services at known addresses."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self.asked: list[RolloutSet] = []

    async def ensure(self, services: Iterable[str], on_restart: OnRestart | None = None) -> dict[str, str]:
        return {}

    async def ensure_rollouts(self, wanted: RolloutSet, on_restart: OnRestart | None = None) -> list[str]:
        self.asked.append(wanted)
        return list(self.addresses)

    async def end_rollouts(self, ended: RolloutSet, *, keep: int = 0) -> None:
        raise AssertionError("must not be called")

    async def close(self) -> None:
        return None


@asynccontextmanager
async def service(folder: Path) -> AsyncIterator[str]:
    """A rollout service without weights."""
    settings = rollout_settings(folder)
    async with serving(await build(settings), settings) as address:
        yield address


async def status(address: str) -> rollout_v1.GetStatusResponse:
    async with open_channel(address) as channel:
        return await rollout_v1.RolloutServiceStub(channel).GetStatus(rollout_v1.GetStatusRequest(), timeout=10)


def two() -> controller_v1.RolloutServices:
    return controller_v1.RolloutServices(engine="transformers", replicas=2)


async def generate(rollouts: ReplicaSet, version: int, request_id: str = "r") -> dict[int, types_v1.Sample]:
    stream = rollouts.generate(["a", "b", "c", "d"], sampling=SAMPLING, n=2, version=version, request_id=request_id)
    return {response.sample.index: response.sample async for response in stream}


async def test_a_lost_replica_comes_back_leased_and_with_the_active_version(tmp_path: Path, tiny_folder: Path) -> None:
    """With the local launcher and processes: two services in one process would load models over each other."""
    events: list[str] = []

    async def tell(kind: str, message: str) -> None:
        events.append(message)

    other = make_tiny_model(tmp_path / "other", seed=3)
    launcher = LocalLauncher(ControllerSettings(state_dir=tmp_path / "state", rollout_threads=1))
    rollouts = ReplicaSet(launcher, "demo", 60)
    try:
        await rollouts.connect(two, tell)
        await rollouts.acquire()
        keeping = asyncio.create_task(keep_repaired(rollouts))
        await rollouts.update_weights(weights_ref(tiny_folder, 0))
        first = await generate(rollouts, 0)
        await rollouts.update_weights(weights_ref(other, 1))
        before = rollouts.addresses
        record = discovery.read(tmp_path / "state" / "rollouts" / "rollout-2", "rollout")
        assert record is not None
        psutil.Process(record.pid).kill()
        found = await generate(rollouts, 1)
        assert sorted(found) == sorted(first) == list(range(8))
        assert {sample.segments[0].version for sample in found.values()} == {1}
        async with asyncio.timeout(120):
            while not any("serves version 1" in line for line in events):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        restarted = next(address for address in rollouts.addresses if address not in before)
        said = await status(restarted)
        assert (said.version, said.lease.holder) == (1, "runs/demo")
        assert sorted(await generate(rollouts, 1, "again")) == list(range(8))
        assert any("was lost" in line for line in events)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await rollouts.release()
        assert not (await status(restarted)).HasField("lease")
    finally:
        await rollouts.close()
        await launcher.close()


async def test_a_replica_that_another_run_holds_is_reported_with_its_holder(tmp_path: Path) -> None:
    async with service(tmp_path / "one") as first, service(tmp_path / "two") as second:
        mine, theirs = (ReplicaSet(External([first, second]), name, 60) for name in ("mine", "theirs"))
        for rollouts in (mine, theirs):
            await rollouts.connect(two)
        await theirs.acquire()
        with pytest.raises(FailedPrecondition) as held:
            await mine.acquire()
        assert held.value.metadata["holder"] == "runs/theirs"
        await theirs.release()
        await mine.acquire()
        for rollouts in (mine, theirs):
            await rollouts.close()


async def test_where_none_serves_the_stage_fails_soon_and_not_at_the_deadline(
    tmp_path: Path, tiny_folder: Path
) -> None:
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(service(tmp_path / "one"))
        rollouts = ReplicaSet(External([address]), "demo", 60)
        await rollouts.connect(lambda: controller_v1.RolloutServices(replicas=1))
        await rollouts.update_weights(weights_ref(tiny_folder, 0))
        await stack.aclose()
        async with asyncio.timeout(30):
            with pytest.raises(Unavailable):
                await generate(rollouts, 0)
        await rollouts.close()


def test_what_all_runs_share_has_no_name_and_what_a_swap_brought_in_is_the_runs_own() -> None:
    services = controller_v1.RolloutServices(engine="vllm", replicas=2)
    assert rollout_set(services, "demo") == RolloutSet("vllm", 2)
    services.swap = 3
    services.engine_options.update({"kv_cache_gib": 1})
    assert rollout_set(services, "demo") == RolloutSet("vllm", 2, '{"kv_cache_gib": 1.0}', "rollout.demo.3")


async def test_weights_that_came_by_another_way_than_the_first_are_reported_with_the_reason(
    tmp_path: Path, tiny_folder: Path
) -> None:
    events: list[tuple[str, str]] = []

    async def tell(kind: str, message: str) -> None:
        events.append((kind, message))

    weights = weights_ref(make_tiny_model(tmp_path / "other", seed=3), 1)
    weights.delta.uri, weights.delta.base_digest = "file:///nowhere", "1" * 64
    async with service(tmp_path / "one") as address:
        rollouts = ReplicaSet(External([address]), "demo", 60)
        try:
            await rollouts.connect(lambda: controller_v1.RolloutServices(engine="transformers", replicas=1), tell)
            await rollouts.update_weights(weights_ref(tiny_folder, 0))
            assert events == []
            await rollouts.update_weights(weights)
            assert (await status(address)).digest == weights.digest
        finally:
            await rollouts.close()
    ((kind, message),) = events
    assert kind == "weights_fallback"
    assert "file:///nowhere: BASE_MISSING" in message
