"""Asking a service whether it takes calls."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Iterable

from grpc_health.v1 import health_pb2, health_pb2_grpc

from accord.channel import open_channel
from accord.errors import AccordError, Unavailable

log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
POLL_SECONDS = 0.1


async def is_healthy(address: str, timeout: float = PROBE_SECONDS) -> bool:
    """Whether the service at `address` says SERVING within `timeout` seconds."""
    async with open_channel(address) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except AccordError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def wait_healthy(name: str, address: str, seconds: float) -> None:
    """Returns when the service says SERVING; Unavailable, SERVICE_DOWN, when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not await is_healthy(address, timeout=min(PROBE_SECONDS, seconds)):
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the {name} service at {address} does not answer within {seconds:g} s; is it running?",
                reason="SERVICE_DOWN",
                metadata={"service": name, "address": address},
            )
        await asyncio.sleep(POLL_SECONDS)


async def those_up(replicas: Iterable[Awaitable[str]]) -> list[str]:
    """Addresses of the replicas that come up, all at once; the first's error where none does."""
    results = await asyncio.gather(*replicas, return_exceptions=True)
    failed = [result for result in results if isinstance(result, BaseException)]
    for error in failed:
        if not isinstance(error, AccordError) or len(failed) == len(results):
            raise error
        log.warning("a replica does not come up: %s", error.message)
    return [result for result in results if isinstance(result, str)]
