"""`python -m accord_reward`: starts the reward service."""

from __future__ import annotations

from accord_reward.settings import RewardSettings
from accord_runtime.serving.main import run_service
from accord_runtime.serving.server import Service


async def build(settings: RewardSettings) -> Service:
    """Imports and builds the service when the settings are known to be good."""
    from accord_reward import servicer

    return await servicer.build(settings)


if __name__ == "__main__":
    run_service("reward", RewardSettings, build)
