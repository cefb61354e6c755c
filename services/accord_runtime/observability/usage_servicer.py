"""accord.usage.v1.UsageService, for any service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from accord.usage import v1 as usage_v1
from accord_runtime.observability import usage


class UsageServicer(usage_v1.UsageServiceServicer):
    """Adapts `usage` to the contract. `gpus`: the ids of the GPUs that the service holds."""

    def __init__(self, gpus: Callable[[], Sequence[str]]) -> None:
        self._gpus = gpus

    async def GetUsage(
        self, request: usage_v1.GetUsageRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> usage_v1.GetUsageResponse:
        found = await asyncio.to_thread(usage.with_children)
        return usage_v1.GetUsageResponse(
            instance=found.instance, cpu_seconds=found.cpu_seconds, gpus=await asyncio.to_thread(self._gpus)
        )
