"""Rollout services by a name: every address that it has now is one of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.rollout import rollout_settings

from accord.errors import Unavailable
from accord_controller.launchers.health import resolved
from accord_controller.launchers.launcher import RolloutSet
from accord_controller.launchers.static import StaticAddresses
from accord_controller.settings import ControllerSettings
from accord_rollout.service import build
from accord_runtime.serving.server import serving


async def test_a_name_stands_for_its_addresses_and_those_that_serve_are_taken(tmp_path: Path) -> None:
    settings = rollout_settings(tmp_path)
    async with serving(await build(settings), settings) as address:
        name = f"dns:///localhost:{address.rpartition(':')[2]}"
        assert address in await resolved([name])
        assert await resolved(["10.0.0.1:7001"]) == ["10.0.0.1:7001"]
        controller = ControllerSettings(state_dir=tmp_path, launcher="none", rollout_address=name, start_seconds=2)
        assert await StaticAddresses(controller).ensure_rollouts(RolloutSet()) == [address]


@pytest.mark.parametrize("name", ["dns:///no.such.name.invalid:7001", "dns:///localhost"])
async def test_a_name_without_an_address_is_said(name: str) -> None:
    with pytest.raises(Unavailable, match=name) as raised:
        await resolved([name])
    assert raised.value.reason == "NO_SUCH_NAME"
