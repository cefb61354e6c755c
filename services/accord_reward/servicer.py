"""accord.reward.v1.RewardService over gRPC: messages in, handler, messages out."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Iterable, Sequence

import grpc

from accord.reward import v1 as reward_v1
from accord_reward import converters
from accord_reward.handler import RewardHandler
from accord_reward.settings import RewardSettings
from accord_runtime.observability.metrics import Measure


class RewardServicer(reward_v1.RewardServiceServicer):
    """Adapts the handler; errors pass through to the interceptor."""

    def __init__(self, handler: RewardHandler) -> None:
        self._handler = handler

    async def Score(
        self,
        request: reward_v1.ScoreRequest,
        context: grpc.aio.ServicerContext[reward_v1.ScoreRequest, Awaitable[reward_v1.ScoreResponse]],
    ) -> reward_v1.ScoreResponse:
        """Scores every item, each with a score or a failure of its own."""
        mixture, items = converters.mixture(request.scorers), converters.items(request.items)
        outcomes = await self._handler.score(mixture, items, request.isolated)
        results = [
            converters.result(item.item_id, outcome) for item, outcome in zip(request.items, outcomes, strict=True)
        ]
        return reward_v1.ScoreResponse(results=results)

    async def LoadModel(
        self,
        request: reward_v1.LoadModelRequest,
        context: grpc.aio.ServicerContext[reward_v1.LoadModelRequest, Awaitable[reward_v1.LoadModelResponse]],
    ) -> reward_v1.LoadModelResponse:
        """Puts a reward model into service under its digest."""
        return reward_v1.LoadModelResponse(digest=await self._handler.load_model(request))

    async def UnloadModel(
        self,
        request: reward_v1.UnloadModelRequest,
        context: grpc.aio.ServicerContext[reward_v1.UnloadModelRequest, Awaitable[reward_v1.UnloadModelResponse]],
    ) -> reward_v1.UnloadModelResponse:
        """Frees a model's memory."""
        await self._handler.unload_model(request)
        return reward_v1.UnloadModelResponse()

    async def ListScorers(
        self,
        request: reward_v1.ListScorersRequest,
        context: grpc.aio.ServicerContext[reward_v1.ListScorersRequest, Awaitable[reward_v1.ListScorersResponse]],
    ) -> reward_v1.ListScorersResponse:
        """The scorers that can be named here, and the loaded models."""
        scorers, digests = self._handler.list_scorers()
        return reward_v1.ListScorersResponse(
            scorers=[converters.info(scorer) for scorer in scorers], loaded_model_digests=digests
        )


class RewardService:
    """The service as accord_runtime serves it."""

    service_names = ("accord.reward.v1.RewardService",)

    def __init__(self, handler: RewardHandler) -> None:
        self._handler = handler

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the servicer."""
        reward_v1.add_RewardServiceServicer_to_server(RewardServicer(self._handler), server)

    def gpus(self) -> Sequence[str]:
        """Those that hold reward models; torch is there when the first was loaded."""
        if "torch" not in sys.modules:
            return []
        from accord_models.gpus import held_gpus

        return held_gpus()

    def measures(self) -> Iterable[Measure]:
        """What is in memory."""
        _, models = self._handler.list_scorers()
        yield Measure("accord_reward_models_loaded", "Reward models in memory.", len(models))

    async def close(self) -> None:
        """Closes the handler."""
        await self._handler.close()


async def build(settings: RewardSettings) -> RewardService:
    """The service from its settings. Light: torch is imported when the first model is loaded."""
    return RewardService(RewardHandler(settings))
