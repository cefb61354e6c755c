"""All five real services in this process, each on its own port, for clients of any version."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.rollout import rollout_settings

import accord
import accord_controller.service
import accord_preference.service
import accord_reward.service
import accord_rollout.service
import accord_trainer.service
from accord_controller.settings import ControllerSettings
from accord_preference.settings import PreferenceSettings
from accord_reward.settings import RewardSettings
from accord_runtime.serving.server import serving, start
from accord_runtime.serving.settings import ServiceSettings
from accord_trainer.settings import TrainerSettings


@dataclass(frozen=True)
class Site:
    """`addresses` by service name: rollout, reward, preference, trainer."""

    folder: Path
    addresses: Mapping[str, str]


@asynccontextmanager
async def services(folder: Path) -> AsyncIterator[Site]:
    """The four services that a controller drives."""
    settings: dict[str, tuple[ServiceSettings, object]] = {
        "rollout": (rollout_settings(folder), accord_rollout.service),
        "reward": (RewardSettings(state_dir=folder / "reward"), accord_reward.service),
        "preference": (PreferenceSettings(state_dir=folder), accord_preference.service),
        "trainer": (TrainerSettings(state_dir=folder, threads=1), accord_trainer.service),
    }
    async with AsyncExitStack() as stack:
        addresses = {}
        for name, (chosen, module) in settings.items():
            service = await module.build(chosen)  # type: ignore[attr-defined]
            addresses[name] = await stack.enter_async_context(serving(service, chosen))
        yield Site(folder, addresses)


@asynccontextmanager
async def controller(folder: Path, addresses: Mapping[str, str]) -> AsyncIterator[str]:
    """A controller of running services; its address."""
    given = {f"{name}_address": address for name, address in addresses.items()}
    chosen = ControllerSettings(state_dir=folder, launcher="none", start_seconds=10, pause_seconds=5, **given)  # type: ignore[arg-type]
    async with serving(await accord_controller.service.build(chosen), chosen) as address:
        yield address


@asynccontextmanager
async def scraped_services(folder: Path) -> AsyncIterator[list[str]]:
    """What Prometheus gets from each of the five services after one call to it."""
    built: list[tuple[ServiceSettings, Any]] = [
        (rollout_settings(folder, metrics_port=0), accord_rollout.service),
        (RewardSettings(state_dir=folder / "reward", metrics_port=0), accord_reward.service),
        (PreferenceSettings(state_dir=folder, metrics_port=0), accord_preference.service),
        (TrainerSettings(state_dir=folder, threads=1, metrics_port=0), accord_trainer.service),
        (ControllerSettings(state_dir=folder, launcher="none", metrics_port=0), accord_controller.service),
    ]
    texts = []
    async with AsyncExitStack() as stack:
        for chosen, module in built:
            server = await start(await module.build(chosen), chosen)
            stack.push_async_callback(server.stop, 0)
            async with accord.Client(reward=server.address) as client:
                await client.usage.of("reward")
            url = f"http://127.0.0.1:{server.metrics_port}/metrics"
            texts.append(await asyncio.to_thread(lambda at=url: urllib.request.urlopen(at, timeout=10).read().decode()))
        yield texts
