"""accord.controller.v1 over gRPC: adapts messages to the handler."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from accord.controller import v1
from accord_controller.handler import ControllerHandler

Context = grpc.aio.ServicerContext[Any, Any]


class RunServicer(v1.RunServiceServicer):
    """Adapts the handler; errors pass through to the interceptor."""

    def __init__(self, handler: ControllerHandler) -> None:
        self._handler = handler

    async def CreateRun(self, request: v1.CreateRunRequest, context: Context) -> v1.CreateRunResponse:
        """Starts a run."""
        return v1.CreateRunResponse(run=await self._handler.create_run(request))

    async def GetRun(self, request: v1.GetRunRequest, context: Context) -> v1.GetRunResponse:
        """One run."""
        return v1.GetRunResponse(run=await self._handler.get_run(request.run_id))

    async def ListRuns(self, request: v1.ListRunsRequest, context: Context) -> v1.ListRunsResponse:
        """A page of runs, newest first."""
        runs, token = await self._handler.list_runs(request)
        return v1.ListRunsResponse(runs=runs, next_page_token=token)

    async def WatchRun(self, request: v1.WatchRunRequest, context: Context) -> AsyncIterator[v1.WatchRunResponse]:
        """Streams a run's events."""
        async for event in self._handler.watch_run(request.run_id, request.after_sequence):
            yield v1.WatchRunResponse(event=event)

    async def ListEvents(self, request: v1.ListEventsRequest, context: Context) -> v1.ListEventsResponse:
        """A page of past events."""
        events = await self._handler.list_events(request.run_id, request.after_sequence, request.page_size)
        return v1.ListEventsResponse(events=events)

    async def CancelRun(self, request: v1.CancelRunRequest, context: Context) -> v1.CancelRunResponse:
        """Ends a run for good."""
        return v1.CancelRunResponse(run=await self._handler.cancel_run(request))

    async def PauseRun(self, request: v1.PauseRunRequest, context: Context) -> v1.PauseRunResponse:
        """Stops a run at the next durable point."""
        return v1.PauseRunResponse(run=await self._handler.pause_run(request))

    async def ResumeRun(self, request: v1.ResumeRunRequest, context: Context) -> v1.ResumeRunResponse:
        """Resumes a run."""
        return v1.ResumeRunResponse(run=await self._handler.resume_run(request))

    async def CollectGarbage(self, request: v1.CollectGarbageRequest, context: Context) -> v1.CollectGarbageResponse:
        """Frees unreferenced data."""
        garbage = await self._handler.collect_garbage(request)
        return v1.CollectGarbageResponse(freed_bytes=garbage.freed_bytes, freed=garbage.freed)

    async def EnsureServices(self, request: v1.EnsureServicesRequest, context: Context) -> v1.EnsureServicesResponse:
        """The addresses of the services; starts those that are down."""
        return v1.EnsureServicesResponse(addresses=await self._handler.ensure_services(request.services))

    async def SwapEngine(self, request: v1.SwapEngineRequest, context: Context) -> v1.SwapEngineResponse:
        """Replaces a run's rollout engine."""
        return v1.SwapEngineResponse(swap=await self._handler.swap_engine(request))

    async def UpdateRun(self, request: v1.UpdateRunRequest, context: Context) -> v1.UpdateRunResponse:
        """Edits the spec of an active run."""
        return v1.UpdateRunResponse(run=await self._handler.update_run(request))


class ModelServicer(v1.ModelServiceServicer):
    """Adapts the handler."""

    def __init__(self, handler: ControllerHandler) -> None:
        self._handler = handler

    async def ListModels(self, request: v1.ListModelsRequest, context: Context) -> v1.ListModelsResponse:
        """A page of models, newest first."""
        models, token = await self._handler.list_models(request)
        return v1.ListModelsResponse(models=models, next_page_token=token)

    async def GetModel(self, request: v1.GetModelRequest, context: Context) -> v1.GetModelResponse:
        """One model by name."""
        return v1.GetModelResponse(model=await self._handler.get_model(request.name))

    async def GetModelLineage(self, request: v1.GetModelLineageRequest, context: Context) -> v1.GetModelLineageResponse:
        """The steps that produced a model."""
        return await self._handler.model_lineage(request)

    async def ListTrainedModels(
        self, request: v1.ListTrainedModelsRequest, context: Context
    ) -> v1.ListTrainedModelsResponse:
        """The models that learnt from snapshots."""
        return v1.ListTrainedModelsResponse(models=await self._handler.trained_models(request.snapshots))

    async def PromoteModel(self, request: v1.PromoteModelRequest, context: Context) -> v1.PromoteModelResponse:
        """Makes a model its run's active policy."""
        return v1.PromoteModelResponse(model=await self._handler.promote_model(request))

    async def RollBackModel(self, request: v1.RollBackModelRequest, context: Context) -> v1.RollBackModelResponse:
        """Returns to the previous active policy."""
        return v1.RollBackModelResponse(model=await self._handler.roll_back_model(request))

    async def ListModelChanges(
        self, request: v1.ListModelChangesRequest, context: Context
    ) -> v1.ListModelChangesResponse:
        """A page of the changes of active policies."""
        found, token = await self._handler.model_changes(request)
        return v1.ListModelChangesResponse(changes=found, next_page_token=token)
