"""`python -m accord_reward`: starts the reward service."""

from __future__ import annotations

from accord_reward.settings import RewardSettings
from accord_runtime.serving.main import run_service
from accord_runtime.serving.server import Service


async def build(settings: RewardSettings) -> Service:
    """Imports and builds the service once the settings are known to be valid."""
    from accord_reward import service

    return await service.build(settings)


if __name__ == "__main__":
    run_service("reward", RewardSettings, build)
