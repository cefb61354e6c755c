"""The launcher for services that run already: fixed addresses, and names that stand for several."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.rollout import rollout_settings

from accord.errors import FailedPrecondition, InvalidArgument, Unavailable
from accord_controller.launchers.health import resolve
from accord_controller.launchers.launcher import RolloutSet
from accord_controller.launchers.static import StaticAddresses
from accord_controller.settings import ControllerSettings
from accord_rollout.service import build
from accord_runtime.serving.server import serving


async def test_a_name_stands_for_its_addresses_and_the_healthy_ones_are_used(tmp_path: Path) -> None:
    settings = rollout_settings(tmp_path)
    async with serving(await build(settings), settings) as address:
        name = f"dns:///localhost:{address.rpartition(':')[2]}"
        assert address in await resolve([name])
        assert await resolve(["10.0.0.1:7001"]) == ["10.0.0.1:7001"]
        controller = ControllerSettings(state_dir=tmp_path, launcher="none", rollout_address=name, start_seconds=2)
        assert await StaticAddresses(controller).ensure_rollouts(RolloutSet()) == [address]


@pytest.mark.parametrize("name", ["dns:///no.such.name.invalid:7001", "dns:///localhost"])
async def test_a_name_without_an_address_is_refused(name: str) -> None:
    with pytest.raises(Unavailable, match=name) as raised:
        await resolve([name])
    assert raised.value.reason == "NO_SUCH_NAME"


async def test_a_given_address_is_used_and_one_that_is_down_is_named(tmp_path: Path) -> None:
    settings = ControllerSettings(state_dir=tmp_path, preference_address="127.0.0.1:1", start_seconds=0.3)
    static = StaticAddresses(settings)
    with pytest.raises(Unavailable, match=r"preference service at 127\.0\.0\.1:1"):
        await static.ensure(["preference"])
    with pytest.raises(FailedPrecondition, match="--trainer-address"):
        await static.ensure(["trainer"])
    with pytest.raises(InvalidArgument, match="unknown service 'tainer'; available: rollout"):
        await static.ensure(["tainer"])


async def test_a_swap_needs_a_launcher_that_can_start_the_engine(tmp_path: Path) -> None:
    static = StaticAddresses(ControllerSettings(state_dir=tmp_path))
    with pytest.raises(FailedPrecondition, match="--launcher none") as refused:
        await static.ensure_rollouts(RolloutSet("vllm", name="rollout.demo.2"))
    assert refused.value.reason == "NO_LAUNCHER"
    with pytest.raises(FailedPrecondition, match="--rollout-address"):
        await static.ensure_rollouts(RolloutSet())
