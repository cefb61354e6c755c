"""The logic of the trainer service, without gRPC."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator

from accord import plugins
from accord.digest import weights_digest
from accord.errors import InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_runtime.serving import paging
from accord_runtime.serving.idempotency import OnceUnderLease
from accord_runtime.serving.leases import LeaseTable
from accord_trainer.algorithm import Experience
from accord_trainer.metrics.log import MetricsLog
from accord_trainer.trainings.history import identity
from accord_trainer.trainings.publisher import DELTA
from accord_trainer.trainings.registry import TrainingRegistry, folder_bytes, needed_digests
from accord_trainer.trainings.training import GROUP
from accord_trainer.trainings.verification import verify_preference, verify_sample


class TrainerHandler:
    """The service's calls, on a registry of trainings. Errors are accord.errors."""

    def __init__(self, registry: TrainingRegistry, max_lease_seconds: float, metrics_log: MetricsLog) -> None:
        self._registry = registry
        self._metrics_log = metrics_log
        self.leases = LeaseTable(max_lease_seconds)
        self._mutate = OnceUnderLease(self.leases).run
        self._pending_steps = 0

    async def create(self, request: trainer_v1.CreateTrainingRequest) -> trainer_v1.Training:
        training_id = request.training.training_id
        await self._mutate(request, lambda: self._registry.create(request.training))
        return self.training(training_id)

    def training(self, training_id: str) -> trainer_v1.Training:
        """A training with its output-only fields."""
        manifest = self._registry.manifest(training_id)
        history, checkpoint_version = self._registry.history(training_id)
        training = trainer_v1.Training()
        training.CopyFrom(manifest.training)
        training.compute_dtype = manifest.compute_dtype
        training.version = history.version
        training.digest = history.digest
        training.checkpoint_version = checkpoint_version
        training.tokenizer_fingerprint = manifest.tokenizer_fingerprint
        training.compute_threads = manifest.compute_threads
        training.learns_from = manifest.learns_from
        return training

    def list(self, page_size: int, page_token: str) -> tuple[list[trainer_v1.Training], str]:
        """A page, ordered by id; the token is the last id of the previous page, as in 0.1.0."""
        size = paging.page_size(page_size, 100, 1000)
        rest = [training_id for training_id in self._registry.ids() if training_id > page_token]
        page = [self.training(training_id) for training_id in rest[:size]]
        return page, rest[size - 1] if len(rest) > size else ""

    async def delete(self, request: trainer_v1.DeleteTrainingRequest) -> None:
        await self._mutate(request, lambda: self._delete(request.training_id))

    async def _delete(self, training_id: str) -> None:
        await self._registry.delete(training_id)
        self._metrics_log.forget(training_id)

    async def put(self, requests: AsyncIterator[trainer_v1.PutExperienceRequest]) -> trainer_v1.PutExperienceResponse:
        """Verifies each record as it arrives and stores the batch when the stream ends."""
        training_id = ""
        batch = Experience([], [])
        async for request in requests:
            if not training_id:
                training_id = request.training_id
                if not training_id:
                    raise InvalidArgument.at("training_id", "must be set in the first message")
                self.leases.check(request.lease_token)
                expected = identity(self._registry.manifest(training_id), self._registry.history(training_id)[0])
            elif request.training_id not in ("", training_id):
                raise InvalidArgument.at("training_id", "must be the same in every message of the stream")
            for scored in request.chunk.samples:
                verify_sample(scored, f"chunk.samples[{len(batch.samples)}]", expected)
                batch.samples.append(scored)
            for example in request.chunk.preferences:
                verify_preference(example, f"chunk.preferences[{len(batch.preferences)}]", expected)
                batch.preferences.append(example)
        if not batch.samples and not batch.preferences:
            raise InvalidArgument.at("chunk", "the stream has no records")
        loaded = await self._registry.load(training_id)
        loaded.algorithm.check(batch)
        stored = self._registry.batches(training_id).put(batch)
        return trainer_v1.PutExperienceResponse(batch_id=stored.batch_id, digest=stored.digest, records=stored.records)

    async def step(self, request: trainer_v1.StepRequest) -> trainer_v1.StepResult:
        """The result of the step: computed now, shared with a running call, or from the history."""
        self.leases.check(request.lease_token)
        kept = self._registry.history(request.training_id)[0].kept_result(request)
        if kept is not None:
            return kept
        return await self._mutate(request, lambda: self._step(request))

    async def _step(self, request: trainer_v1.StepRequest) -> trainer_v1.StepResult:
        self._pending_steps += 1
        try:
            batch = self._registry.batches(request.training_id).get(request.batch_id)
            return await self._registry.use(
                request.training_id, lambda training: self._logged(training.step(request, batch))
            )
        finally:
            self._pending_steps -= 1

    def _logged(self, result: trainer_v1.StepResult) -> trainer_v1.StepResult:
        # On the compute thread, which runs one step at a time.
        self._metrics_log.write(result)
        return result

    async def evaluate(self, training_id: str, batch_id: str) -> dict[str, float]:
        batch = self._registry.batches(training_id).get(batch_id)
        return await self._registry.use(training_id, lambda training: training.evaluate(batch))

    async def publish(self, request: trainer_v1.PublishRequest) -> types_v1.WeightsRef:
        async def work() -> types_v1.WeightsRef:
            return await self._registry.use(
                request.training_id, lambda training: training.publish(request.format, request.scheme)
            )

        return await self._mutate(request, work)

    async def checkpoint(self, request: trainer_v1.CheckpointRequest) -> int:
        async def work() -> int:
            return await self._registry.use(request.training_id, lambda training: training.checkpoint())

        return await self._mutate(request, work)

    async def free(self, request: trainer_v1.FreeArtifactsRequest) -> trainer_v1.FreeArtifactsResponse:
        return await self._mutate(request, lambda: self._free(request))

    async def _free(self, request: trainer_v1.FreeArtifactsRequest) -> trainer_v1.FreeArtifactsResponse:
        """Frees trainings first, then published folders that neither the caller nor a remaining training needs."""
        response = trainer_v1.FreeArtifactsResponse()
        keep = set(request.keep_digests)
        for training_id in self._registry.ids():
            if training_id in request.keep_training_ids:
                keep |= needed_digests(self._registry.manifest(training_id).training)
                continue
            response.freed.append(training_id)
            response.freed_bytes += self._registry.bytes(training_id)
            if not request.dry_run:
                await self._delete(training_id)
        root, kept = self._registry.publisher.root, set[str]()
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            # A delta has no digest that callers know; it is kept together with the weights that it produces.
            if folder.suffix == DELTA and folder.stem in kept:
                continue
            # Folders that start with a dot are unfinished: being written now, or when the process was killed.
            if not folder.name.startswith(".") and await asyncio.to_thread(weights_digest, folder) in keep:
                kept.add(folder.name)
                continue
            response.freed.append(str(folder.resolve()))
            response.freed_bytes += folder_bytes(folder)
            if not request.dry_run:
                await asyncio.to_thread(shutil.rmtree, folder)
        return response

    def status(self) -> trainer_v1.GetStatusResponse:
        return trainer_v1.GetStatusResponse(
            algorithms=plugins.names(GROUP), pending_steps=self._pending_steps, lease=self.leases.current()
        )

    async def close(self) -> None:
        """Ends the compute thread; a running step is rolled back."""
        await self._registry.compute.close()
        self._metrics_log.close()
