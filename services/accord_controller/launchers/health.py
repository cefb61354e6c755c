"""Health checks: which services accept calls, and at which addresses."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Iterable

from grpc_health.v1 import health_pb2, health_pb2_grpc

from accord.channel import open_channel
from accord.errors import AccordError, Unavailable

log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
POLL_SECONDS = 0.1
# The prefix of an address that stands for several: gRPC's syntax for a DNS name.
DNS = "dns:///"


async def is_healthy(address: str, timeout: float = PROBE_SECONDS) -> bool:
    """Whether the service at `address` reports SERVING within `timeout` seconds."""
    async with open_channel(address) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except AccordError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def wait_healthy(name: str, address: str, seconds: float) -> None:
    """Returns when the service reports SERVING. Unavailable, SERVICE_DOWN, if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not await is_healthy(address, timeout=min(PROBE_SECONDS, seconds)):
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the {name} service at {address} did not answer within {seconds:g} s; is it running?",
                reason="SERVICE_DOWN",
                metadata={"service": name, "address": address},
            )
        await asyncio.sleep(POLL_SECONDS)


async def addresses_up(replicas: Iterable[Awaitable[str]]) -> list[str]:
    """The addresses of the replicas that come up, awaited together. If none comes up, raises the first replica's
    error."""
    results = await asyncio.gather(*replicas, return_exceptions=True)
    failed = [result for result in results if isinstance(result, BaseException)]
    for error in failed:
        if not isinstance(error, AccordError) or len(failed) == len(results):
            raise error
        log.warning("a replica did not come up: %s", error.message)
    return [result for result in results if isinstance(result, str)]


async def healthy_addresses(addresses: Iterable[str], seconds: float) -> list[str]:
    """The rollout services that answer within `seconds`. Unavailable, SERVICE_DOWN, if none does."""

    async def answering(address: str) -> str:
        await wait_healthy("rollout", address, seconds)
        return address

    return await addresses_up(answering(address) for address in addresses)


async def resolve(addresses: Iterable[str]) -> list[str]:
    """Resolves `dns:///name:port` to every current address of the name: in a cluster, those of a headless Service's
    pods. Other addresses are returned unchanged. Unavailable, NO_SUCH_NAME, if the name has no address."""
    found: list[str] = []
    for address in addresses:
        if not address.startswith(DNS):
            found.append(address)
            continue
        name, _, port = address.removeprefix(DNS).rpartition(":")
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(name, int(port), type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"no rollout service is registered under {address} ({error}). The format is {DNS}NAME:PORT",
                reason="NO_SUCH_NAME",
                metadata={"service": "rollout", "address": address},
            ) from error
        hosts = dict.fromkeys(str(info[4][0]) for info in infos)
        found += [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts]
    return found
