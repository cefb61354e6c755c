"""Assembles the rollout service from its settings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import grpc

from accord import plugins
from accord.digest import weights_digest
from accord.rollout import v1 as rollout_v1
from accord_rollout.settings import RolloutSettings
from accord_runtime.artifacts.transfer import Limits
from accord_runtime.observability.metrics import Measure

if TYPE_CHECKING:
    from accord_rollout.engine import Engine, EngineFactory
    from accord_rollout.handler import RolloutHandler

log = logging.getLogger(__name__)


class RolloutService:
    """The service, as accord_runtime.serving.server serves it."""

    service_names = (rollout_v1.ROLLOUT_SERVICE.services_by_name["RolloutService"].full_name,)

    def __init__(self, handler: RolloutHandler) -> None:
        self.handler = handler

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the servicer."""
        from accord_rollout.servicer import RolloutServicer

        rollout_v1.add_RolloutServiceServicer_to_server(RolloutServicer(self.handler), server)

    def gpus(self) -> Sequence[str]:
        """The GPUs that the service and its engine use."""
        return self.handler.gpus()

    def measures(self) -> Iterable[Measure]:
        """The queue (for scaling replicas) and the active weights."""
        status = self.handler.status()
        yield Measure("accord_rollout_pending_samples", "Samples waiting or being generated.", status.pending_samples)
        yield Measure(
            "accord_rollout_max_pending_samples",
            "Requests beyond this number of samples are refused.",
            status.max_pending_samples,
        )
        yield Measure("accord_rollout_ready", "1 while the engine has active weights.", float(status.ready))
        yield Measure("accord_rollout_weights_version", "The version of the active weights.", status.version)

    async def close(self) -> None:
        """Stops the engine."""
        await self.handler.close()


async def build(settings: RolloutSettings) -> RolloutService:
    """Builds the engine and, if `settings.model` is set, loads that folder as version 0.

    InvalidArgument/UNKNOWN_ENGINE, BAD_MODEL, WEIGHTS_NOT_FOUND.
    """
    from accord_rollout.handler import RolloutHandler

    # Before the engine's slow imports, so that a wrong path fails immediately.
    digest = await asyncio.to_thread(weights_digest, settings.model) if settings.model else ""
    factory: EngineFactory = plugins.load("accord.engines", settings.engine, field="engine")
    engine: Engine = await asyncio.to_thread(factory, settings)
    handler = RolloutHandler(
        engine,
        engine_name=settings.engine,
        cache=settings.state_dir / "cache",
        max_pending_samples=settings.max_pending_samples,
        limits=Limits(total_seconds=settings.fetch_seconds, stall_seconds=settings.fetch_stall_seconds),
        max_prepared_versions=settings.max_prepared_versions,
        max_lease_seconds=settings.max_lease_seconds,
    )
    if settings.model is not None:
        await handler.install(settings.model, version=0, digest=digest)
        log.info("serving %s as version 0, digest %s", settings.model, digest)
    return RolloutService(handler)
