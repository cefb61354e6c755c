"""`client.usage`: processor time and GPUs that each service uses."""

from __future__ import annotations

from collections.abc import Callable

import grpc.aio

from accord import _calls
from accord.usage import v1 as usage_v1


class Usage:
    """Processor time and GPUs of any service of this client. `timeout` is seconds for the call, retries included."""

    def __init__(self, channel: Callable[[str], grpc.aio.Channel], caller: _calls.Caller) -> None:
        self._channel = channel
        self._caller = caller

    async def of(self, service: str, *, timeout: float = _calls.QUICK) -> usage_v1.GetUsageResponse:
        """The resource use of a service (`rollout`, `reward`, `preference`, `trainer`, `controller`) since its start.

        FailedPrecondition, NO_ADDRESS; Unimplemented if it does not report its use.
        """
        stub = usage_v1.UsageServiceStub(self._channel(service))
        request = usage_v1.GetUsageRequest()
        return await self._caller.call(lambda seconds: stub.GetUsage(request, timeout=seconds), timeout)
