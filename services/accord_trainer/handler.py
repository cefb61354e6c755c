"""What the trainer service does, without gRPC."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator

from accord import plugins
from accord.digest import weights_digest
from accord.errors import InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_runtime.serving.idempotency import OnceUnderLease
from accord_runtime.serving.leases import LeaseTable
from accord_trainer.algorithm import Experience
from accord_trainer.metrics.log import MetricsLog
from accord_trainer.trainings.history import facts
from accord_trainer.trainings.publisher import DELTA
from accord_trainer.trainings.registry import TrainingRegistry, folder_bytes, needed_digests
from accord_trainer.trainings.training import GROUP
from accord_trainer.trainings.verification import verify_preference, verify_sample


class TrainerHandler:
    """The service's calls on a shelf of trainings. Errors are accord.errors."""

    def __init__(self, shelf: TrainingRegistry, max_lease_seconds: float, curves: MetricsLog) -> None:
        self._shelf = shelf
        self._curves = curves
        self.leases = LeaseTable(max_lease_seconds)
        self._mutate = OnceUnderLease(self.leases).run
        self._pending_steps = 0

    async def create(self, request: trainer_v1.CreateTrainingRequest) -> trainer_v1.Training:
        training_id = request.training.training_id
        await self._mutate(request, lambda: self._shelf.create(request.training))
        return self.training(training_id)

    def training(self, training_id: str) -> trainer_v1.Training:
        """A training with its output-only fields."""
        manifest = self._shelf.manifest(training_id)
        record, checkpoint_version = self._shelf.record(training_id)
        training = trainer_v1.Training()
        training.CopyFrom(manifest.training)
        training.compute_dtype = manifest.compute_dtype
        training.version = record.version
        training.digest = record.digest
        training.checkpoint_version = checkpoint_version
        training.tokenizer_fingerprint = manifest.tokenizer_fingerprint
        training.compute_threads = manifest.compute_threads
        training.learns_from = manifest.learns_from
        return training

    def list(self, page_size: int, page_token: str) -> tuple[list[trainer_v1.Training], str]:
        """A page, ordered by id; the token is the last id of the page before."""
        if page_size < 0:
            raise InvalidArgument.at("page_size", "must be at least 0")
        size = min(page_size or 100, 1000)
        rest = [training_id for training_id in self._shelf.ids() if training_id > page_token]
        page = [self.training(training_id) for training_id in rest[:size]]
        return page, rest[size - 1] if len(rest) > size else ""

    async def delete(self, request: trainer_v1.DeleteTrainingRequest) -> None:
        await self._mutate(request, lambda: self._delete(request.training_id))

    async def _delete(self, training_id: str) -> None:
        await self._shelf.delete(training_id)
        self._curves.forget(training_id)

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
                known = facts(self._shelf.manifest(training_id), self._shelf.record(training_id)[0])
            elif request.training_id not in ("", training_id):
                raise InvalidArgument.at("training_id", "must be the same in every message of the stream")
            for scored in request.chunk.samples:
                verify_sample(scored, f"chunk.samples[{len(batch.samples)}]", known)
                batch.samples.append(scored)
            for example in request.chunk.preferences:
                verify_preference(example, f"chunk.preferences[{len(batch.preferences)}]", known)
                batch.preferences.append(example)
        if not batch.samples and not batch.preferences:
            raise InvalidArgument.at("chunk", "the stream held no record")
        live = await self._shelf.live(training_id)
        live.algorithm.check(batch)
        stored = self._shelf.batches(training_id).put(batch)
        return trainer_v1.PutExperienceResponse(batch_id=stored.batch_id, digest=stored.digest, records=stored.records)

    async def step(self, request: trainer_v1.StepRequest) -> trainer_v1.StepResult:
        """The result of the step: computed, waited for, or kept."""
        self.leases.check(request.lease_token)
        kept = self._shelf.record(request.training_id)[0].kept_result(request)
        if kept is not None:
            return kept
        return await self._mutate(request, lambda: self._step(request))

    async def _step(self, request: trainer_v1.StepRequest) -> trainer_v1.StepResult:
        self._pending_steps += 1
        try:
            batch = self._shelf.batches(request.training_id).get(request.batch_id)
            return await self._shelf.use(request.training_id, lambda live: self._made(live.step(request, batch)))
        finally:
            self._pending_steps -= 1

    def _made(self, result: trainer_v1.StepResult) -> trainer_v1.StepResult:
        # Here, on the worker, steps come one after the other.
        self._curves.write(result)
        return result

    async def evaluate(self, training_id: str, batch_id: str) -> dict[str, float]:
        batch = self._shelf.batches(training_id).get(batch_id)
        return await self._shelf.use(training_id, lambda live: live.evaluate(batch))

    async def publish(self, request: trainer_v1.PublishRequest) -> types_v1.WeightsRef:
        self._shelf.publisher.check(request.format, request.scheme)

        async def work() -> types_v1.WeightsRef:
            return await self._shelf.use(request.training_id, lambda live: live.publish(request.format, request.scheme))

        return await self._mutate(request, work)

    async def checkpoint(self, request: trainer_v1.CheckpointRequest) -> int:
        async def work() -> int:
            return await self._shelf.use(request.training_id, lambda live: live.checkpoint())

        return await self._mutate(request, work)

    async def free(self, request: trainer_v1.FreeArtifactsRequest) -> trainer_v1.FreeArtifactsResponse:
        return await self._mutate(request, lambda: self._free(request))

    async def _free(self, request: trainer_v1.FreeArtifactsRequest) -> trainer_v1.FreeArtifactsResponse:
        """Trainings first, then published folders that neither the caller nor a training that stays needs."""
        response = trainer_v1.FreeArtifactsResponse()
        keep = set(request.keep_digests)
        for training_id in self._shelf.ids():
            if training_id in request.keep_training_ids:
                keep |= needed_digests(self._shelf.manifest(training_id).training)
                continue
            response.freed.append(training_id)
            response.freed_bytes += self._shelf.bytes(training_id)
            if not request.dry_run:
                await self._delete(training_id)
        root, kept = self._shelf.publisher.root, set[str]()
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            # A delta has no digest of its own that anybody knows: it stays with what it leads to.
            if folder.suffix == DELTA and folder.stem in kept:
                continue
            # Folders that begin with a dot are being written, or were when somebody was killed.
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
        """Ends the worker; a step in work is undone."""
        await self._shelf.worker.close()
        self._curves.close()
