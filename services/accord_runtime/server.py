"""One gRPC server: interceptors, health, reflection, message limits, graceful drain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, runtime_checkable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from accord.errors import Unavailable
from accord.usage import v1 as usage_v1
from accord_runtime.interceptors import Edge
from accord_runtime.settings import ServiceSettings
from accord_runtime.usage_servicer import UsageServicer

log = logging.getLogger(__name__)


class Service(Protocol):
    """What a service gives to be served."""

    @property
    def service_names(self) -> Sequence[str]:
        """Full gRPC names, for health and reflection: `accord.rollout.v1.RolloutService`."""
        ...

    def register(self, server: grpc.aio.Server) -> None:
        """Adds its servicers."""
        ...

    async def close(self) -> None:
        """Frees what it holds; called once, after the last call ended."""
        ...


@runtime_checkable
class Draining(Protocol):
    """A service with calls that end only when it makes them (long streams) adds this."""

    async def drain(self) -> None:
        """Brings its work to a point where it can stop; called once, before calls in work are waited for."""
        ...


@runtime_checkable
class HoldingGpus(Protocol):
    """A service that computes on GPUs adds this."""

    def gpus(self) -> Sequence[str]:
        """Ids of the GPUs that hold memory for it now. Called in a thread."""
        ...


class RunningServer:
    """A server that takes calls at `address` until `stop`."""

    def __init__(
        self, server: grpc.aio.Server, service: Service, edge: Edge, checks: health.aio.HealthServicer, address: str
    ):
        self._server = server
        self._service = service
        self._edge = edge
        self._health = checks
        self.address = address

    async def stop(self, drain_seconds: float) -> None:
        """Says NOT_SERVING, refuses new calls, lets those in work end within `drain_seconds`, closes the service."""
        await self._health.enter_graceful_shutdown()
        self._edge.draining = True
        if isinstance(self._service, Draining):
            await self._service.drain()
        await self._server.stop(drain_seconds)
        await self._service.close()


async def start(service: Service, settings: ServiceSettings) -> RunningServer:
    """Starts serving. Unavailable, reason PORT_IN_USE, where the port is taken."""
    edge = Edge(settings.max_call_seconds)
    server = grpc.aio.server(
        interceptors=[edge],
        options=[
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", settings.max_message_bytes),
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ],
    )
    service.register(server)
    gpus = service.gpus if isinstance(service, HoldingGpus) else tuple
    usage_v1.add_UsageServiceServicer_to_server(UsageServicer(gpus), server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = (*service.service_names, usage_v1.USAGE_SERVICE.services_by_name["UsageService"].full_name)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    target = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        port = _bind(server, f"{target}:{settings.port}", settings)
        await server.start()
    except RuntimeError as error:
        raise Unavailable(
            f"cannot listen on {target}:{settings.port}: {error}. Is the port in use? "
            "Give another --port, or 0 for a free one",
            reason="PORT_IN_USE",
        ) from error
    for name in ("", *names):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    return RunningServer(server, service, edge, checks, f"{target}:{port}")


def _bind(server: grpc.aio.Server, target: str, settings: ServiceSettings) -> int:
    if settings.tls_cert is None or settings.tls_key is None:
        return server.add_insecure_port(target)
    pair = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
    return server.add_secure_port(target, grpc.ssl_server_credentials([pair]))


@asynccontextmanager
async def serving(service: Service, settings: ServiceSettings) -> AsyncIterator[str]:
    """Serves for the length of a `with` block and gives the address: what tests and notebooks use."""
    running = await start(service, settings)
    try:
        yield running.address
    finally:
        await asyncio.shield(running.stop(0.2))
