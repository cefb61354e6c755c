"""accord.trainer.v1.TrainerService on the handler: converts messages and makes no decisions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from accord.trainer import v1 as trainer_v1
from accord_trainer.handler import TrainerHandler

Context = grpc.aio.ServicerContext[Any, Any]


class TrainerServicer(trainer_v1.TrainerServiceServicer):
    """Adapts TrainerHandler to gRPC."""

    def __init__(self, handler: TrainerHandler) -> None:
        self._handler = handler

    async def CreateTraining(
        self, request: trainer_v1.CreateTrainingRequest, context: Context
    ) -> trainer_v1.CreateTrainingResponse:
        return trainer_v1.CreateTrainingResponse(training=await self._handler.create(request))

    async def GetTraining(
        self, request: trainer_v1.GetTrainingRequest, context: Context
    ) -> trainer_v1.GetTrainingResponse:
        return trainer_v1.GetTrainingResponse(training=self._handler.training(request.training_id))

    async def ListTrainings(
        self, request: trainer_v1.ListTrainingsRequest, context: Context
    ) -> trainer_v1.ListTrainingsResponse:
        page, token = self._handler.list(request.page_size, request.page_token)
        return trainer_v1.ListTrainingsResponse(trainings=page, next_page_token=token)

    async def DeleteTraining(
        self, request: trainer_v1.DeleteTrainingRequest, context: Context
    ) -> trainer_v1.DeleteTrainingResponse:
        await self._handler.delete(request)
        return trainer_v1.DeleteTrainingResponse()

    async def PutExperience(
        self, request_iterator: AsyncIterator[trainer_v1.PutExperienceRequest], context: Context
    ) -> trainer_v1.PutExperienceResponse:
        return await self._handler.put(request_iterator)

    async def Step(self, request: trainer_v1.StepRequest, context: Context) -> trainer_v1.StepResponse:
        return trainer_v1.StepResponse(result=await self._handler.step(request))

    async def Evaluate(self, request: trainer_v1.EvaluateRequest, context: Context) -> trainer_v1.EvaluateResponse:
        metrics = await self._handler.evaluate(request.training_id, request.batch_id)
        return trainer_v1.EvaluateResponse(metrics=metrics)

    async def Publish(self, request: trainer_v1.PublishRequest, context: Context) -> trainer_v1.PublishResponse:
        return trainer_v1.PublishResponse(weights=await self._handler.publish(request))

    async def Checkpoint(
        self, request: trainer_v1.CheckpointRequest, context: Context
    ) -> trainer_v1.CheckpointResponse:
        return trainer_v1.CheckpointResponse(version=await self._handler.checkpoint(request))

    async def FreeArtifacts(
        self, request: trainer_v1.FreeArtifactsRequest, context: Context
    ) -> trainer_v1.FreeArtifactsResponse:
        return await self._handler.free(request)

    async def GetStatus(self, request: trainer_v1.GetStatusRequest, context: Context) -> trainer_v1.GetStatusResponse:
        return self._handler.status()

    async def AcquireLease(
        self, request: trainer_v1.AcquireLeaseRequest, context: Context
    ) -> trainer_v1.AcquireLeaseResponse:
        ttl = request.ttl.ToTimedelta().total_seconds()
        return trainer_v1.AcquireLeaseResponse(lease=self._handler.leases.acquire(request.holder, ttl, request.token))

    async def ReleaseLease(
        self, request: trainer_v1.ReleaseLeaseRequest, context: Context
    ) -> trainer_v1.ReleaseLeaseResponse:
        self._handler.leases.release(request.token)
        return trainer_v1.ReleaseLeaseResponse()
