"""`client.trainer`: models under training."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from accord import _calls
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1


class Trainer:
    """A trainer service: idempotent steps on stored experience, checkpoints, published weights.

    Every method raises `accord.errors`; `timeout` is seconds for the whole call, retries included. `request_id` makes a
    call safe to repeat, also from another process; None: a new one, used for all retries of this call.
    """

    def __init__(self, channel: grpc.aio.Channel, caller: _calls.Caller) -> None:
        self._stub = trainer_v1.TrainerServiceStub(channel)
        self._caller = caller

    async def create_training(
        self,
        training: trainer_v1.Training,
        *,
        request_id: str | None = None,
        lease_token: str = "",
        timeout: float = _calls.WEIGHTS,
    ) -> trainer_v1.Training:
        """Creates a training, or returns the existing one with this content. AlreadyExists if its content differs."""
        request = trainer_v1.CreateTrainingRequest(
            request_id=_calls.new_request_id(request_id), training=training, lease_token=lease_token
        )
        response = await self._caller.call(lambda seconds: self._stub.CreateTraining(request, timeout=seconds), timeout)
        return response.training

    async def training(self, training_id: str, *, timeout: float = _calls.QUICK) -> trainer_v1.Training:
        """The training. After a restart of the trainer its version is that of the last checkpoint."""
        request = trainer_v1.GetTrainingRequest(training_id=training_id)
        response = await self._caller.call(lambda seconds: self._stub.GetTraining(request, timeout=seconds), timeout)
        return response.training

    async def trainings(self, *, timeout: float = _calls.QUICK) -> AsyncIterator[trainer_v1.Training]:
        """All trainings, ordered by id. `timeout` is seconds per page."""

        def fetch(token: str) -> Awaitable[trainer_v1.ListTrainingsResponse]:
            request = trainer_v1.ListTrainingsRequest(page_token=token)
            return self._caller.call(lambda seconds: self._stub.ListTrainings(request, timeout=seconds), timeout)

        async for page in _calls.pages(fetch):
            for training in page.trainings:
                yield training

    async def delete_training(
        self,
        training_id: str,
        *,
        request_id: str | None = None,
        lease_token: str = "",
        timeout: float = _calls.QUICK,
    ) -> None:
        """Deletes a training with its checkpoints and batches. Published weights stay."""
        request = trainer_v1.DeleteTrainingRequest(
            request_id=_calls.new_request_id(request_id), training_id=training_id, lease_token=lease_token
        )
        await self._caller.call(lambda seconds: self._stub.DeleteTraining(request, timeout=seconds), timeout)

    async def put_experience(
        self,
        training_id: str,
        *,
        samples: Iterable[trainer_v1.ScoredSample] = (),
        preferences: Iterable[trainer_v1.PreferenceExample] = (),
        lease_token: str = "",
        timeout: float = _calls.SCORE,
    ) -> trainer_v1.PutExperienceResponse:
        """Stores a batch, sent in chunks, and returns its id, which is derived from its content.

        All items are collected before any is sent. InvalidArgument names the sample and the wrong field;
        FailedPrecondition for experience whose weights or tokenizer cannot be verified.
        """
        chunks = [trainer_v1.ExperienceChunk(samples=chunk) for chunk in _calls.chunked(samples)]
        chunks += [trainer_v1.ExperienceChunk(preferences=chunk) for chunk in _calls.chunked(preferences)]
        messages = [trainer_v1.PutExperienceRequest(chunk=chunk) for chunk in chunks or [trainer_v1.ExperienceChunk()]]
        messages[0].training_id = training_id
        messages[0].lease_token = lease_token
        return await self._caller.call(
            lambda seconds: self._stub.PutExperience(iter(messages), timeout=seconds), timeout
        )

    async def step(
        self,
        training_id: str,
        batch_id: str,
        *,
        parent_version: int,
        publish: bool = False,
        request_id: str | None = None,
        lease_token: str = "",
        timeout: float = _calls.STEP,
    ) -> trainer_v1.StepResult:
        """Trains on a batch: parent_version -> parent_version + 1.

        Repeated with the same request_id, it waits for the running step or returns its result. FailedPrecondition,
        WRONG_PARENT, if a different version is current.
        """
        request = trainer_v1.StepRequest(
            request_id=_calls.new_request_id(request_id),
            training_id=training_id,
            batch_id=batch_id,
            parent_version=parent_version,
            publish=publish,
            lease_token=lease_token,
        )
        response = await self._caller.call(lambda seconds: self._stub.Step(request, timeout=seconds), timeout)
        return response.result

    async def evaluate(self, training_id: str, batch_id: str, *, timeout: float = _calls.STEP) -> dict[str, float]:
        """Evaluates a batch with the current weights, without training; returns metrics by name."""
        request = trainer_v1.EvaluateRequest(training_id=training_id, batch_id=batch_id)
        response = await self._caller.call(lambda seconds: self._stub.Evaluate(request, timeout=seconds), timeout)
        return dict(response.metrics)

    async def publish(
        self,
        training_id: str,
        *,
        format: str = "",
        scheme: str = "",
        request_id: str | None = None,
        lease_token: str = "",
        timeout: float = _calls.WEIGHTS,
    ) -> types_v1.WeightsRef:
        """Publishes the current weights as a folder that `from_pretrained` can load.

        `format`: `merged` (the default) or `adapter`; `scheme` of the URI: `file` or `grpc` (empty: the trainer's).
        """
        request = trainer_v1.PublishRequest(
            request_id=_calls.new_request_id(request_id),
            training_id=training_id,
            format=format,
            scheme=scheme,
            lease_token=lease_token,
        )
        response = await self._caller.call(lambda seconds: self._stub.Publish(request, timeout=seconds), timeout)
        return response.weights

    async def checkpoint(
        self,
        training_id: str,
        *,
        request_id: str | None = None,
        lease_token: str = "",
        timeout: float = _calls.WEIGHTS,
    ) -> int:
        """Writes a checkpoint of the current version and returns that version."""
        request = trainer_v1.CheckpointRequest(
            request_id=_calls.new_request_id(request_id), training_id=training_id, lease_token=lease_token
        )
        response = await self._caller.call(lambda seconds: self._stub.Checkpoint(request, timeout=seconds), timeout)
        return response.version

    async def free_artifacts(
        self,
        keep_digests: Sequence[str],
        keep_training_ids: Sequence[str],
        dry_run: bool = False,
        *,
        request_id: str | None = None,
        lease_token: str = "",
        timeout: float = _calls.SCORE,
    ) -> trainer_v1.FreeArtifactsResponse:
        """Deletes all published weights and all trainings that are not in the two lists."""
        request = trainer_v1.FreeArtifactsRequest(
            request_id=_calls.new_request_id(request_id),
            keep_digests=keep_digests,
            keep_training_ids=keep_training_ids,
            dry_run=dry_run,
            lease_token=lease_token,
        )
        return await self._caller.call(lambda seconds: self._stub.FreeArtifacts(request, timeout=seconds), timeout)

    async def status(self, *, timeout: float = _calls.QUICK) -> trainer_v1.GetStatusResponse:
        """The available algorithms and the load."""
        request = trainer_v1.GetStatusRequest()
        return await self._caller.call(lambda seconds: self._stub.GetStatus(request, timeout=seconds), timeout)

    async def acquire_lease(
        self, holder: str, *, ttl_seconds: float, token: str = "", timeout: float = _calls.QUICK
    ) -> types_v1.Lease:
        """Takes, or with `token` renews, the exclusive use of the service. FailedPrecondition, LEASE_HELD, names the
        holder. Without `token` the call is not retried: a lost answer would leave a lease whose token is unknown."""
        ttl = Duration()
        ttl.FromMilliseconds(round(ttl_seconds * 1000))
        request = trainer_v1.AcquireLeaseRequest(holder=holder, ttl=ttl, token=token)
        response = await self._caller.call(
            lambda seconds: self._stub.AcquireLease(request, timeout=seconds), timeout, repeatable=bool(token)
        )
        return response.lease

    async def release_lease(self, token: str, *, timeout: float = _calls.QUICK) -> None:
        """Releases the lease; does nothing if it has expired."""
        request = trainer_v1.ReleaseLeaseRequest(token=token)
        await self._caller.call(lambda seconds: self._stub.ReleaseLease(request, timeout=seconds), timeout)
