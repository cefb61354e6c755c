"""One gRPC server: interceptors, health, reflection, message limits, graceful drain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from accord.errors import Unavailable
from accord.usage import v1 as usage_v1
from accord_runtime.observability.metrics import Measured, Metrics, MetricsServer
from accord_runtime.observability.usage_servicer import UsageServicer
from accord_runtime.serving.interceptors import Edge
from accord_runtime.serving.settings import ServiceSettings
from accord_runtime.serving.tls import server_credentials

log = logging.getLogger(__name__)


class Service(Protocol):
    """The interface that the server needs from a service."""

    @property
    def service_names(self) -> Sequence[str]:
        """Full gRPC names, for health and reflection: `accord.rollout.v1.RolloutService`."""
        ...

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the service's servicers."""
        ...

    async def close(self) -> None:
        """Frees the service's resources. Called once, after the last call has ended."""
        ...


@runtime_checkable
class Draining(Protocol):
    """Implemented by services with calls that only the service ends, such as long streams."""

    async def drain(self) -> None:
        """Stops the service's work at a safe point. Called once, before the server waits for active calls."""
        ...


@runtime_checkable
class HoldingGpus(Protocol):
    """Implemented by services that compute on GPUs."""

    def gpus(self) -> Sequence[str]:
        """The ids of the GPUs on which the service currently has memory. Called in a thread."""
        ...


@dataclass(frozen=True)
class RunningServer:
    """A server that accepts calls at `address` until `stop`. `health_port`, `metrics_port`: 0 if there is none."""

    address: str
    health_port: int
    metrics_port: int
    _server: grpc.aio.Server
    _service: Service
    _edge: Edge
    _health: health.aio.HealthServicer
    _probes: grpc.aio.Server | None
    _metrics: MetricsServer | None

    async def stop(self, drain_seconds: float) -> None:
        """Reports NOT_SERVING, refuses new calls, gives active calls `drain_seconds` to finish, and closes the
        service."""
        await self._health.enter_graceful_shutdown()
        self._edge.draining = True
        if isinstance(self._service, Draining):
            await self._service.drain()
        await self._server.stop(drain_seconds)
        await self._service.close()
        if self._probes is not None:
            await self._probes.stop(0)
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.stop)


async def start(service: Service, settings: ServiceSettings) -> RunningServer:
    """Starts serving. Unavailable, PORT_IN_USE; FailedPrecondition, TLS_FILES."""
    metrics = Metrics(service.measures if isinstance(service, Measured) else tuple)
    edge = Edge(settings.max_call_seconds, metrics)
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
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    async with AsyncExitStack() as undone:
        # The main port comes last. If a port is in use, everything started before it is stopped.
        probes, probe_port = None, 0
        if settings.health_port is not None:
            probes = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
            health_pb2_grpc.add_HealthServicer_to_server(checks, probes)
            probe_port = await _listen(probes, host, settings.health_port, None)
            undone.push_async_callback(probes.stop, 0)
        scraped = None
        if settings.metrics_port is not None:
            scraped = metrics.serve(settings.host, settings.metrics_port)
            undone.push_async_callback(asyncio.to_thread, scraped.stop)
        port = await _listen(server, host, settings.port, _credentials(settings))
        for name in ("", *names):
            await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
        undone.pop_all()
    return RunningServer(
        f"{host}:{port}",
        probe_port,
        scraped.port if scraped else 0,
        _server=server,
        _service=service,
        _edge=edge,
        _health=checks,
        _probes=probes,
        _metrics=scraped,
    )


async def _listen(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
    """Starts the server on a port; returns the port at which it accepts calls."""
    target = f"{host}:{port}"
    try:
        bound = server.add_secure_port(target, credentials) if credentials else server.add_insecure_port(target)
        await server.start()
    except RuntimeError as error:
        raise Unavailable(
            f"cannot listen on {target}: {error}. Is the port in use? Choose another --port, or 0 for a free one",
            reason="PORT_IN_USE",
        ) from error
    return bound


def _credentials(settings: ServiceSettings) -> grpc.ServerCredentials | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return server_credentials(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


@asynccontextmanager
async def serving(service: Service, settings: ServiceSettings) -> AsyncIterator[str]:
    """Serves during a `with` block and yields the address; for tests and notebooks."""
    running = await start(service, settings)
    try:
        yield running.address
    finally:
        await asyncio.shield(running.stop(0.2))
