"""Assembles the reward service from its settings."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import grpc

from accord.reward import v1 as reward_v1
from accord_reward.handler import RewardHandler
from accord_reward.servicer import RewardServicer
from accord_reward.settings import RewardSettings
from accord_runtime.observability.metrics import Measure


class RewardService:
    """The service, as accord_runtime.serving.server serves it."""

    service_names = ("accord.reward.v1.RewardService",)

    def __init__(self, handler: RewardHandler) -> None:
        self._handler = handler

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the servicer."""
        reward_v1.add_RewardServiceServicer_to_server(RewardServicer(self._handler), server)

    def gpus(self) -> Sequence[str]:
        """The GPUs that hold reward models. torch is imported with the first model."""
        if "torch" not in sys.modules:
            return []
        from accord_models.gpus import held_gpus

        return held_gpus()

    def measures(self) -> Iterable[Measure]:
        """The number of loaded models."""
        _, models = self._handler.list_scorers()
        yield Measure("accord_reward_models_loaded", "Reward models in memory.", len(models))

    async def close(self) -> None:
        """Closes the handler."""
        await self._handler.close()


async def build(settings: RewardSettings) -> RewardService:
    """The service from its settings. Fast: torch is only imported when the first model is loaded."""
    return RewardService(RewardHandler(settings))
