"""Puts the trainer service together from its settings: the trainer, and the artifacts that it publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from accord import discovery
from accord.artifact import v1 as artifact_v1
from accord.errors import FailedPrecondition
from accord.trainer import v1 as trainer_v1
from accord_runtime.artifact_servicer import ArtifactServicer
from accord_runtime.artifacts import ArtifactStore
from accord_trainer.settings import TrainerSettings

if TYPE_CHECKING:
    from accord_trainer.handler import TrainerHandler


class TrainerService:
    """What accord_runtime.server serves."""

    service_names = (
        trainer_v1.TRAINER_SERVICE.services_by_name["TrainerService"].full_name,
        artifact_v1.ARTIFACT_SERVICE.services_by_name["ArtifactService"].full_name,
    )

    def __init__(self, handler: TrainerHandler, artifacts: ArtifactStore) -> None:
        self.handler = handler
        self._artifacts = artifacts

    def register(self, server: grpc.aio.Server) -> None:
        """Adds both servicers."""
        from accord_trainer.servicer import TrainerServicer

        trainer_v1.add_TrainerServiceServicer_to_server(TrainerServicer(self.handler), server)
        artifact_v1.add_ArtifactServiceServicer_to_server(ArtifactServicer(self._artifacts), server)

    async def close(self) -> None:
        """Stops the step in work (undone, to be repeated) and ends the worker."""
        await self.handler.close()


async def build(settings: TrainerSettings) -> TrainerService:
    """Opens what is kept in `settings.state_dir`; models are loaded when they are first needed."""
    from accord_trainer.handler import TrainerHandler
    from accord_trainer.publisher import Publisher
    from accord_trainer.shelf import Shelf

    def address() -> str:
        if settings.advertise:
            return settings.advertise
        if settings.port:
            return f"{settings.host}:{settings.port}"
        found = discovery.read(settings.state_dir, "trainer")
        if found is None:
            raise FailedPrecondition("this trainer does not know its own address; set --advertise", reason="NO_ADDRESS")
        return found.address

    artifacts = settings.state_dir / "artifacts"
    publisher = Publisher(artifacts, settings.scheme, address)
    shelf = Shelf(
        settings.state_dir / "trainer",
        cache=settings.state_dir / "cache",
        publisher=publisher,
        threads=settings.threads,
        max_loaded=settings.max_loaded,
    )
    return TrainerService(TrainerHandler(shelf, settings.max_lease_seconds), ArtifactStore(artifacts))
