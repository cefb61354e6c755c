"""Adapts the handler to accord.reward.v1.RewardService."""

from __future__ import annotations

from collections.abc import Awaitable

import grpc

from accord.reward import v1 as reward_v1
from accord_reward import converters
from accord_reward.handler import RewardHandler


class RewardServicer(reward_v1.RewardServiceServicer):
    """RewardHandler over gRPC; the interceptor turns errors into statuses."""

    def __init__(self, handler: RewardHandler) -> None:
        self._handler = handler

    async def Score(
        self,
        request: reward_v1.ScoreRequest,
        context: grpc.aio.ServicerContext[reward_v1.ScoreRequest, Awaitable[reward_v1.ScoreResponse]],
    ) -> reward_v1.ScoreResponse:
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
        return reward_v1.LoadModelResponse(digest=await self._handler.load_model(request))

    async def UnloadModel(
        self,
        request: reward_v1.UnloadModelRequest,
        context: grpc.aio.ServicerContext[reward_v1.UnloadModelRequest, Awaitable[reward_v1.UnloadModelResponse]],
    ) -> reward_v1.UnloadModelResponse:
        await self._handler.unload_model(request)
        return reward_v1.UnloadModelResponse()

    async def ListScorers(
        self,
        request: reward_v1.ListScorersRequest,
        context: grpc.aio.ServicerContext[reward_v1.ListScorersRequest, Awaitable[reward_v1.ListScorersResponse]],
    ) -> reward_v1.ListScorersResponse:
        scorers, digests = self._handler.list_scorers()
        return reward_v1.ListScorersResponse(
            scorers=[converters.info(scorer) for scorer in scorers], loaded_model_digests=digests
        )
