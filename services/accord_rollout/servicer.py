"""Adapts the handler to accord.rollout.v1.RolloutService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from accord.rollout import v1 as rollout_v1
from accord_rollout.handler import RolloutHandler

Context = grpc.aio.ServicerContext[Any, Any]


class RolloutServicer(rollout_v1.RolloutServiceServicer):
    """RolloutHandler over gRPC."""

    def __init__(self, handler: RolloutHandler) -> None:
        self._handler = handler

    async def Generate(
        self, request: rollout_v1.GenerateRequest, context: Context
    ) -> AsyncIterator[rollout_v1.GenerateResponse]:
        async with aclosing(self._handler.generate(request)) as responses:
            async for response in responses:
                yield response

    async def UpdateWeights(
        self, request: rollout_v1.UpdateWeightsRequest, context: Context
    ) -> rollout_v1.UpdateWeightsResponse:
        return await self._handler.update_weights(request)

    async def PrepareWeights(
        self, request: rollout_v1.PrepareWeightsRequest, context: Context
    ) -> rollout_v1.PrepareWeightsResponse:
        return await self._handler.prepare_weights(request)

    async def ActivateWeights(
        self, request: rollout_v1.ActivateWeightsRequest, context: Context
    ) -> rollout_v1.ActivateWeightsResponse:
        return await self._handler.activate_weights(request)

    async def DiscardWeights(
        self, request: rollout_v1.DiscardWeightsRequest, context: Context
    ) -> rollout_v1.DiscardWeightsResponse:
        return await self._handler.discard_weights(request)

    async def GetStatus(self, request: rollout_v1.GetStatusRequest, context: Context) -> rollout_v1.GetStatusResponse:
        return self._handler.status()

    async def AcquireLease(
        self, request: rollout_v1.AcquireLeaseRequest, context: Context
    ) -> rollout_v1.AcquireLeaseResponse:
        ttl_seconds = request.ttl.seconds + request.ttl.nanos / 1e9
        return rollout_v1.AcquireLeaseResponse(
            lease=self._handler.leases.acquire(request.holder, ttl_seconds, request.token)
        )

    async def ReleaseLease(
        self, request: rollout_v1.ReleaseLeaseRequest, context: Context
    ) -> rollout_v1.ReleaseLeaseResponse:
        self._handler.leases.release(request.token)
        return rollout_v1.ReleaseLeaseResponse()
