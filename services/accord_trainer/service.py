"""Builds the trainer service from its settings: the trainer, and the artifacts that it publishes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import grpc

from accord import discovery
from accord.artifact import v1 as artifact_v1
from accord.errors import FailedPrecondition
from accord.trainer import v1 as trainer_v1
from accord_runtime.artifacts.servicer import ArtifactServicer
from accord_runtime.artifacts.store import ArtifactStore
from accord_runtime.observability.metrics import Measure
from accord_trainer.settings import TrainerSettings

if TYPE_CHECKING:
    from accord_trainer.handler import TrainerHandler
    from accord_trainer.trainings.loading import TrainingLoader


class TrainerService:
    """The service that accord_runtime.serving.server serves."""

    service_names = (
        trainer_v1.TRAINER_SERVICE.services_by_name["TrainerService"].full_name,
        artifact_v1.ARTIFACT_SERVICE.services_by_name["ArtifactService"].full_name,
    )

    def __init__(self, handler: TrainerHandler, artifacts: ArtifactStore, end: Callable[[], None]) -> None:
        """`end` is called after the last computation."""
        self.handler = handler
        self._artifacts = artifacts
        self._end = end

    def register(self, server: grpc.aio.Server) -> None:
        """Adds both servicers."""
        from accord_trainer.servicer import TrainerServicer

        trainer_v1.add_TrainerServiceServicer_to_server(TrainerServicer(self.handler), server)
        artifact_v1.add_ArtifactServiceServicer_to_server(ArtifactServicer(self._artifacts), server)

    def gpus(self) -> Sequence[str]:
        """The GPUs of all ranks on this machine."""
        from accord_models.gpus import held_gpus

        return held_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))

    def measures(self) -> Iterable[Measure]:
        """The load of the service."""
        status = self.handler.status()
        yield Measure("accord_trainer_pending_steps", "Steps waiting and running.", status.pending_steps)
        yield Measure("accord_trainer_leased", "1 while a run holds the trainer.", float(status.HasField("lease")))

    async def close(self) -> None:
        """Stops the running step, which is rolled back and must be repeated, and ends the compute thread."""
        await self.handler.close()
        await asyncio.to_thread(self._end)


async def build(settings: TrainerSettings, loader: TrainingLoader | None = None) -> TrainerService:
    """Opens the state in `settings.state_dir`; models are loaded on first use. `loader`: a loader that has
    already joined the other ranks; this process is then rank 0."""
    from accord_trainer.distributed.executor import Executor, InProcessExecutor
    from accord_trainer.distributed.process_group import ProcessGroup
    from accord_trainer.handler import TrainerHandler
    from accord_trainer.metrics.log import MetricsLog
    from accord_trainer.trainings.registry import TrainingRegistry

    loader = loader or make_loader(settings)
    executor: Executor = InProcessExecutor()
    end: Callable[[], None] = lambda: None  # noqa: E731
    if isinstance(loader.world, ProcessGroup):
        from accord_trainer.distributed.driver import DriverExecutor

        executor = driver = DriverExecutor(loader.world)
        end = driver.close
    registry = TrainingRegistry(
        loader,
        executor,
        cache=settings.state_dir / "cache",
        threads=settings.threads,
        max_loaded=settings.max_loaded,
    )
    names = [name.strip() for name in settings.metrics.split(",") if name.strip()]
    metrics_log = MetricsLog(names, lambda training_id: registry.root / training_id)
    handler = TrainerHandler(registry, settings.max_lease_seconds, metrics_log)
    return TrainerService(handler, ArtifactStore(settings.state_dir / "artifacts"), end)


def run_worker(settings: TrainerSettings, loader: TrainingLoader) -> None:
    """Runs rank 0's commands on this rank until rank 0 ends. Unavailable, RANK_LOST."""
    from accord_trainer.distributed.process_group import ProcessGroup
    from accord_trainer.trainings.rank_worker import RankWorker

    assert isinstance(loader.world, ProcessGroup)
    RankWorker(loader.world, loader, settings.state_dir / "cache").run()


def make_loader(settings: TrainerSettings) -> TrainingLoader:
    """Joins the other ranks, if torchrun started any. Unavailable, RANK_LOST, if one does not join."""
    from accord_trainer.distributed.process_group import ProcessGroup, local_device, started_by_torchrun
    from accord_trainer.distributed.world import Alone, World
    from accord_trainer.trainings.loading import TrainingLoader
    from accord_trainer.trainings.publisher import Publisher

    def address() -> str:
        if settings.advertise:
            return settings.advertise
        if settings.port:
            return f"{settings.host}:{settings.port}"
        found = discovery.read(settings.state_dir, "trainer")
        if found is None:
            raise FailedPrecondition("this trainer does not know its own address; set --advertise", reason="NO_ADDRESS")
        return found.address

    device = local_device(settings.device)
    world: World = Alone()
    if started_by_torchrun():
        world = ProcessGroup(sharded=settings.parallel == "fsdp", seconds=settings.collective_seconds)
    publisher = Publisher(
        settings.state_dir / "artifacts", settings.scheme, address, world, delta_below=settings.delta_below
    )
    limit = int(settings.memory_gib * 2**30) if settings.memory_gib else None
    peak = settings.peak_tflops * 1e12 or None
    return TrainingLoader(settings.state_dir / "trainer", publisher, world, device, limit, peak, settings.undo)
