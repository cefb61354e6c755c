"""Adapts the contract to the parts of the service: one method per RPC, no rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from accord.errors import Cancelled
from accord.preference import v1 as preference_v1
from accord_preference.annotators import Annotators
from accord_preference.datasets.snapshots import Snapshots
from accord_preference.feedback.feedback import Feedback
from accord_preference.feedback.imports import Imports
from accord_preference.prompts import Prompts
from accord_preference.quality.quality import Quality
from accord_preference.statistics import Statistics
from accord_preference.tasks.flags import Flags
from accord_preference.tasks.tasks import Tasks

Call = grpc.aio.ServicerContext[Any, Any]


class PreferenceServicer(preference_v1.PreferenceServiceServicer):
    """accord.preference.v1.PreferenceService over the parts of the service."""

    def __init__(
        self,
        prompts: Prompts,
        tasks: Tasks,
        flags: Flags,
        feedback: Feedback,
        imports: Imports,
        snapshots: Snapshots,
        statistics: Statistics,
    ):
        self._prompts = prompts
        self._tasks = tasks
        self._flags = flags
        self._feedback = feedback
        self._imports = imports
        self._snapshots = snapshots
        self._statistics = statistics

    async def CreatePrompts(
        self, request: preference_v1.CreatePromptsRequest, context: Call
    ) -> preference_v1.CreatePromptsResponse:
        return await self._prompts.create(request)

    async def ListPrompts(
        self, request: preference_v1.ListPromptsRequest, context: Call
    ) -> preference_v1.ListPromptsResponse:
        return await self._prompts.page(request)

    async def CreateCompletions(
        self, request: preference_v1.CreateCompletionsRequest, context: Call
    ) -> preference_v1.CreateCompletionsResponse:
        return await self._prompts.create_completions(request)

    async def CreateTasks(
        self, request: preference_v1.CreateTasksRequest, context: Call
    ) -> preference_v1.CreateTasksResponse:
        return await self._tasks.create(request)

    async def LeaseTask(
        self, request: preference_v1.LeaseTaskRequest, context: Call
    ) -> preference_v1.LeaseTaskResponse:
        return await self._tasks.lease(request)

    async def ReleaseTask(
        self, request: preference_v1.ReleaseTaskRequest, context: Call
    ) -> preference_v1.ReleaseTaskResponse:
        return await self._tasks.release(request)

    async def CancelTasks(
        self, request: preference_v1.CancelTasksRequest, context: Call
    ) -> preference_v1.CancelTasksResponse:
        return await self._tasks.cancel(request)

    async def GetQueue(self, request: preference_v1.GetQueueRequest, context: Call) -> preference_v1.GetQueueResponse:
        return await self._statistics.queue(request)

    async def SubmitFeedback(
        self, request: preference_v1.SubmitFeedbackRequest, context: Call
    ) -> preference_v1.SubmitFeedbackResponse:
        return await self._feedback.submit(request)

    async def ImportRecords(
        self, request_iterator: AsyncIterator[preference_v1.ImportRecordsRequest], context: Call
    ) -> preference_v1.ImportRecordsResponse:
        return await self._imports.import_records(_whole(request_iterator, context))

    async def CreateSnapshot(
        self, request: preference_v1.CreateSnapshotRequest, context: Call
    ) -> preference_v1.CreateSnapshotResponse:
        return await self._snapshots.create(request)

    async def GetSnapshot(
        self, request: preference_v1.GetSnapshotRequest, context: Call
    ) -> preference_v1.GetSnapshotResponse:
        return await self._snapshots.get(request)

    async def ListSnapshots(
        self, request: preference_v1.ListSnapshotsRequest, context: Call
    ) -> preference_v1.ListSnapshotsResponse:
        return await self._snapshots.page(request)

    async def ExportSnapshot(
        self, request: preference_v1.ExportSnapshotRequest, context: Call
    ) -> AsyncIterator[preference_v1.ExportSnapshotResponse]:
        async for response in self._snapshots.export_snapshot(request):
            yield response

    async def ExportRecords(
        self, request: preference_v1.ExportRecordsRequest, context: Call
    ) -> AsyncIterator[preference_v1.ExportRecordsResponse]:
        async for response in self._snapshots.export_records(request):
            yield response

    async def GetStats(self, request: preference_v1.GetStatsRequest, context: Call) -> preference_v1.GetStatsResponse:
        return await self._statistics.stats()

    async def RenewLease(
        self, request: preference_v1.RenewLeaseRequest, context: Call
    ) -> preference_v1.RenewLeaseResponse:
        return await self._tasks.renew(request)

    async def FlagTask(self, request: preference_v1.FlagTaskRequest, context: Call) -> preference_v1.FlagTaskResponse:
        return await self._flags.flag(request)

    async def ListFlags(
        self, request: preference_v1.ListFlagsRequest, context: Call
    ) -> preference_v1.ListFlagsResponse:
        return await self._flags.page(request)

    async def ResolveTask(
        self, request: preference_v1.ResolveTaskRequest, context: Call
    ) -> preference_v1.ResolveTaskResponse:
        return await self._flags.resolve(request)

    async def RetractFeedback(
        self, request: preference_v1.RetractFeedbackRequest, context: Call
    ) -> preference_v1.RetractFeedbackResponse:
        return await self._feedback.retract(request)

    async def ListFeedback(
        self, request: preference_v1.ListFeedbackRequest, context: Call
    ) -> preference_v1.ListFeedbackResponse:
        return await self._feedback.page(request)

    async def GetCompletion(
        self, request: preference_v1.GetCompletionRequest, context: Call
    ) -> preference_v1.GetCompletionResponse:
        return await self._prompts.get_completion(request)

    async def DeletePrompts(
        self, request: preference_v1.DeletePromptsRequest, context: Call
    ) -> preference_v1.DeletePromptsResponse:
        return await self._prompts.delete(request)

    async def GetSnapshotOrigins(
        self, request: preference_v1.GetSnapshotOriginsRequest, context: Call
    ) -> preference_v1.GetSnapshotOriginsResponse:
        return await self._snapshots.origins(request)

    async def ListSnapshotUses(
        self, request: preference_v1.ListSnapshotUsesRequest, context: Call
    ) -> preference_v1.ListSnapshotUsesResponse:
        return await self._snapshots.uses(request)


class AnnotatorServicer(preference_v1.AnnotatorServiceServicer):
    """accord.preference.v1.AnnotatorService over annotators and their quality."""

    def __init__(self, annotators: Annotators, quality: Quality):
        self._annotators = annotators
        self._quality = quality

    async def RegisterAnnotator(
        self, request: preference_v1.RegisterAnnotatorRequest, context: Call
    ) -> preference_v1.RegisterAnnotatorResponse:
        return await self._annotators.register(request)

    async def GetAnnotator(
        self, request: preference_v1.GetAnnotatorRequest, context: Call
    ) -> preference_v1.GetAnnotatorResponse:
        return await self._annotators.get(request)

    async def ListAnnotators(
        self, request: preference_v1.ListAnnotatorsRequest, context: Call
    ) -> preference_v1.ListAnnotatorsResponse:
        return await self._annotators.page(request)

    async def ExcludeAnnotator(
        self, request: preference_v1.ExcludeAnnotatorRequest, context: Call
    ) -> preference_v1.ExcludeAnnotatorResponse:
        return await self._annotators.exclude(request)

    async def ReinstateAnnotator(
        self, request: preference_v1.ReinstateAnnotatorRequest, context: Call
    ) -> preference_v1.ReinstateAnnotatorResponse:
        return await self._annotators.reinstate(request)

    async def WithdrawAnnotator(
        self, request: preference_v1.WithdrawAnnotatorRequest, context: Call
    ) -> preference_v1.WithdrawAnnotatorResponse:
        return await self._annotators.withdraw(request)

    async def GetQuality(
        self, request: preference_v1.GetQualityRequest, context: Call
    ) -> preference_v1.GetQualityResponse:
        return await self._quality.report(request)


async def _whole(
    requests: AsyncIterator[preference_v1.ImportRecordsRequest], context: Call
) -> AsyncIterator[preference_v1.ImportRecordsRequest]:
    """The stream, which ends only if the sender ended it.

    A broken connection also ends the stream and cancels this call, and gRPC does not guarantee the order of the two.
    This waits briefly for the cancellation, so that a partial stream is never taken for a complete one.
    """
    async for request in requests:
        yield request
    await asyncio.sleep(0.02)
    if context.cancelled():
        raise Cancelled("the stream was interrupted, and nothing of it was stored", reason="STREAM_BROKEN")
