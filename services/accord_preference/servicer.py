"""The contract, adapted to the handlers: one method an RPC, no rules of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from accord.errors import Cancelled
from accord.preference import v1 as preference_v1
from accord_preference.prompts import Prompts

Call = grpc.aio.ServicerContext[Any, Any]


class PreferenceServicer(preference_v1.PreferenceServiceServicer):
    """accord.preference.v1.PreferenceService over a `Prompts`."""

    def __init__(self, handler: Prompts):
        self._handler = handler

    async def CreatePrompts(
        self, request: preference_v1.CreatePromptsRequest, context: Call
    ) -> preference_v1.CreatePromptsResponse:
        """See the contract."""
        return await self._handler.create_prompts(request)

    async def ListPrompts(
        self, request: preference_v1.ListPromptsRequest, context: Call
    ) -> preference_v1.ListPromptsResponse:
        """See the contract."""
        return await self._handler.list_prompts(request)

    async def CreateCompletions(
        self, request: preference_v1.CreateCompletionsRequest, context: Call
    ) -> preference_v1.CreateCompletionsResponse:
        """See the contract."""
        return await self._handler.create_completions(request)

    async def CreateTasks(
        self, request: preference_v1.CreateTasksRequest, context: Call
    ) -> preference_v1.CreateTasksResponse:
        """See the contract."""
        return await self._handler.tasks.create(request)

    async def LeaseTask(
        self, request: preference_v1.LeaseTaskRequest, context: Call
    ) -> preference_v1.LeaseTaskResponse:
        """See the contract."""
        return await self._handler.tasks.lease(request)

    async def ReleaseTask(
        self, request: preference_v1.ReleaseTaskRequest, context: Call
    ) -> preference_v1.ReleaseTaskResponse:
        """See the contract."""
        return await self._handler.tasks.release(request)

    async def CancelTasks(
        self, request: preference_v1.CancelTasksRequest, context: Call
    ) -> preference_v1.CancelTasksResponse:
        """See the contract."""
        return await self._handler.tasks.cancel(request)

    async def GetQueue(self, request: preference_v1.GetQueueRequest, context: Call) -> preference_v1.GetQueueResponse:
        """See the contract."""
        return await self._handler.get_queue(request)

    async def SubmitFeedback(
        self, request: preference_v1.SubmitFeedbackRequest, context: Call
    ) -> preference_v1.SubmitFeedbackResponse:
        """See the contract."""
        return await self._handler.judging.submit(request)

    async def ImportRecords(
        self, request_iterator: AsyncIterator[preference_v1.ImportRecordsRequest], context: Call
    ) -> preference_v1.ImportRecordsResponse:
        """See the contract."""
        return await self._handler.importing.import_records(_whole(request_iterator, context))

    async def CreateSnapshot(
        self, request: preference_v1.CreateSnapshotRequest, context: Call
    ) -> preference_v1.CreateSnapshotResponse:
        """See the contract."""
        return await self._handler.snapshots.create(request)

    async def GetSnapshot(
        self, request: preference_v1.GetSnapshotRequest, context: Call
    ) -> preference_v1.GetSnapshotResponse:
        """See the contract."""
        return await self._handler.snapshots.get(request)

    async def ListSnapshots(
        self, request: preference_v1.ListSnapshotsRequest, context: Call
    ) -> preference_v1.ListSnapshotsResponse:
        """See the contract."""
        return await self._handler.snapshots.page(request)

    async def ExportSnapshot(
        self, request: preference_v1.ExportSnapshotRequest, context: Call
    ) -> AsyncIterator[preference_v1.ExportSnapshotResponse]:
        """See the contract."""
        async for response in self._handler.snapshots.export_snapshot(request):
            yield response

    async def ExportRecords(
        self, request: preference_v1.ExportRecordsRequest, context: Call
    ) -> AsyncIterator[preference_v1.ExportRecordsResponse]:
        """See the contract."""
        async for response in self._handler.snapshots.export_records(request):
            yield response

    async def GetStats(self, request: preference_v1.GetStatsRequest, context: Call) -> preference_v1.GetStatsResponse:
        """See the contract."""
        return await self._handler.get_stats()

    async def RenewLease(
        self, request: preference_v1.RenewLeaseRequest, context: Call
    ) -> preference_v1.RenewLeaseResponse:
        """See the contract."""
        return await self._handler.tasks.renew(request)

    async def FlagTask(self, request: preference_v1.FlagTaskRequest, context: Call) -> preference_v1.FlagTaskResponse:
        """See the contract."""
        return await self._handler.flagging.flag(request)

    async def ListFlags(
        self, request: preference_v1.ListFlagsRequest, context: Call
    ) -> preference_v1.ListFlagsResponse:
        """See the contract."""
        return await self._handler.flagging.page(request)

    async def ResolveTask(
        self, request: preference_v1.ResolveTaskRequest, context: Call
    ) -> preference_v1.ResolveTaskResponse:
        """See the contract."""
        return await self._handler.flagging.resolve(request)

    async def RetractFeedback(
        self, request: preference_v1.RetractFeedbackRequest, context: Call
    ) -> preference_v1.RetractFeedbackResponse:
        """See the contract."""
        return await self._handler.judging.retract(request)

    async def ListFeedback(
        self, request: preference_v1.ListFeedbackRequest, context: Call
    ) -> preference_v1.ListFeedbackResponse:
        """See the contract."""
        return await self._handler.judging.page(request)

    async def GetCompletion(
        self, request: preference_v1.GetCompletionRequest, context: Call
    ) -> preference_v1.GetCompletionResponse:
        """See the contract."""
        return await self._handler.get_completion(request)

    async def DeletePrompts(
        self, request: preference_v1.DeletePromptsRequest, context: Call
    ) -> preference_v1.DeletePromptsResponse:
        """See the contract."""
        return await self._handler.delete_prompts(request)

    async def GetSnapshotOrigins(
        self, request: preference_v1.GetSnapshotOriginsRequest, context: Call
    ) -> preference_v1.GetSnapshotOriginsResponse:
        """See the contract."""
        return await self._handler.snapshots.origins(request)

    async def ListSnapshotUses(
        self, request: preference_v1.ListSnapshotUsesRequest, context: Call
    ) -> preference_v1.ListSnapshotUsesResponse:
        """See the contract."""
        return await self._handler.snapshots.uses(request)


class AnnotatorServicer(preference_v1.AnnotatorServiceServicer):
    """accord.preference.v1.AnnotatorService over a `Prompts`."""

    def __init__(self, handler: Prompts):
        self._handler = handler

    async def RegisterAnnotator(
        self, request: preference_v1.RegisterAnnotatorRequest, context: Call
    ) -> preference_v1.RegisterAnnotatorResponse:
        """See the contract."""
        return await self._handler.annotators.register(request)

    async def GetAnnotator(
        self, request: preference_v1.GetAnnotatorRequest, context: Call
    ) -> preference_v1.GetAnnotatorResponse:
        """See the contract."""
        return await self._handler.annotators.get(request)

    async def ListAnnotators(
        self, request: preference_v1.ListAnnotatorsRequest, context: Call
    ) -> preference_v1.ListAnnotatorsResponse:
        """See the contract."""
        return await self._handler.annotators.page(request)

    async def ExcludeAnnotator(
        self, request: preference_v1.ExcludeAnnotatorRequest, context: Call
    ) -> preference_v1.ExcludeAnnotatorResponse:
        """See the contract."""
        return await self._handler.annotators.exclude(request)

    async def ReinstateAnnotator(
        self, request: preference_v1.ReinstateAnnotatorRequest, context: Call
    ) -> preference_v1.ReinstateAnnotatorResponse:
        """See the contract."""
        return await self._handler.annotators.reinstate(request)

    async def WithdrawAnnotator(
        self, request: preference_v1.WithdrawAnnotatorRequest, context: Call
    ) -> preference_v1.WithdrawAnnotatorResponse:
        """See the contract."""
        return await self._handler.annotators.withdraw(request)

    async def GetQuality(
        self, request: preference_v1.GetQualityRequest, context: Call
    ) -> preference_v1.GetQualityResponse:
        """See the contract."""
        return await self._handler.quality.report(request)


async def _whole(
    requests: AsyncIterator[preference_v1.ImportRecordsRequest], context: Call
) -> AsyncIterator[preference_v1.ImportRecordsRequest]:
    """The stream, ending only where the sender ended it.

    A broken connection ends the stream too, and cancels this call; grpc promises no order of the two. Wait a moment for
    the cancellation, so that half a stream is never taken for a whole one.
    """
    async for request in requests:
        yield request
    await asyncio.sleep(0.02)
    if context.cancelled():
        raise Cancelled("the stream broke; nothing of it was kept", reason="STREAM_BROKEN")
