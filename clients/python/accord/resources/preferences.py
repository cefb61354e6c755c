"""`client.preferences`: prompts, answers, annotation tasks, feedback and snapshots."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from accord import _calls
from accord.preference import v1 as preference_v1


class Preferences:
    """A preference service.

    Every method raises `accord.errors`; `timeout` is seconds for the whole call, retries included. `request_id` makes a
    call safe to repeat, also from another process; None: a new one, used for all retries of this call.
    """

    def __init__(self, channel: grpc.aio.Channel, caller: _calls.Caller) -> None:
        self._stub = preference_v1.PreferenceServiceStub(channel)
        self._caller = caller

    async def create_prompts(
        self,
        prompts: Sequence[preference_v1.Prompt],
        *,
        request_id: str | None = None,
        timeout: float = _calls.SCORE,
    ) -> list[preference_v1.Prompt]:
        """Adds prompts, all or none, and returns them with id and split, in order. Existing prompts stay unchanged."""
        request = preference_v1.CreatePromptsRequest(request_id=_calls.new_request_id(request_id), prompts=prompts)
        response = await self._caller.call(lambda seconds: self._stub.CreatePrompts(request, timeout=seconds), timeout)
        return list(response.prompts)

    async def prompts(
        self,
        *,
        split: preference_v1.Split.ValueType | None = None,
        source: str = "",
        timeout: float = _calls.QUICK,
    ) -> AsyncIterator[preference_v1.Prompt]:
        """Prompts, ordered by id; optionally of one side of the split or one source. `timeout` is seconds per page."""

        def fetch(token: str) -> Awaitable[preference_v1.ListPromptsResponse]:
            request = preference_v1.ListPromptsRequest(
                page_token=token, split=split or preference_v1.SPLIT_UNSPECIFIED, source=source
            )
            return self._caller.call(lambda seconds: self._stub.ListPrompts(request, timeout=seconds), timeout)

        async for page in _calls.pages(fetch):
            for prompt in page.prompts:
                yield prompt

    async def create_completions(
        self,
        completions: Sequence[preference_v1.Completion],
        *,
        request_id: str | None = None,
        timeout: float = _calls.SCORE,
    ) -> list[preference_v1.Completion]:
        """Adds answers to prompts, all or none, and returns them with ids, in order."""
        request = preference_v1.CreateCompletionsRequest(
            request_id=_calls.new_request_id(request_id), completions=completions
        )
        response = await self._caller.call(
            lambda seconds: self._stub.CreateCompletions(request, timeout=seconds), timeout
        )
        return list(response.completions)

    async def create_tasks(
        self, tasks: Sequence[preference_v1.Task], *, request_id: str | None = None, timeout: float = _calls.SCORE
    ) -> list[preference_v1.Task]:
        """Opens tasks for annotators, all or none, and returns them with ids, in order."""
        request = preference_v1.CreateTasksRequest(request_id=_calls.new_request_id(request_id), tasks=tasks)
        response = await self._caller.call(lambda seconds: self._stub.CreateTasks(request, timeout=seconds), timeout)
        return list(response.tasks)

    async def lease_task(
        self,
        annotator: preference_v1.Annotator,
        *,
        ttl_seconds: float = 600,
        queue: str = "",
        resume: bool = False,
        request_id: str | None = None,
        timeout: float = _calls.QUICK,
    ) -> preference_v1.TaskLease | None:
        """Leases the oldest open task that this annotator has not answered for `ttl_seconds`; None if there is none.

        `resume`: first return a task that the annotator has leased already, with its remaining time. A `queue` that
        ends in `/` means all queues with this prefix.
        """
        request = preference_v1.LeaseTaskRequest(
            request_id=_calls.new_request_id(request_id),
            annotator=annotator,
            ttl=_duration(ttl_seconds),
            queue=queue,
            resume=resume,
        )
        response = await self._caller.call(lambda seconds: self._stub.LeaseTask(request, timeout=seconds), timeout)
        return response.lease if response.HasField("lease") else None

    async def release_task(
        self, lease_id: str, *, request_id: str | None = None, timeout: float = _calls.QUICK
    ) -> None:
        """Releases a leased task unanswered."""
        request = preference_v1.ReleaseTaskRequest(request_id=_calls.new_request_id(request_id), lease_id=lease_id)
        await self._caller.call(lambda seconds: self._stub.ReleaseTask(request, timeout=seconds), timeout)

    async def renew_lease(
        self,
        lease_id: str,
        *,
        ttl_seconds: float = 600,
        request_id: str | None = None,
        timeout: float = _calls.QUICK,
    ) -> preference_v1.TaskLease:
        """Extends a lease, counted from now. FailedPrecondition, LEASE_ENDED, if it has ended."""
        request = preference_v1.RenewLeaseRequest(
            request_id=_calls.new_request_id(request_id), lease_id=lease_id, ttl=_duration(ttl_seconds)
        )
        response = await self._caller.call(lambda seconds: self._stub.RenewLease(request, timeout=seconds), timeout)
        return response.lease

    async def flag_task(
        self,
        lease_id: str,
        reason: preference_v1.FlagReason.ValueType,
        *,
        comment: str = "",
        request_id: str | None = None,
        timeout: float = _calls.QUICK,
    ) -> preference_v1.Task:
        """Releases a leased task and reports what is wrong with it. The annotator does not get it again."""
        request = preference_v1.FlagTaskRequest(
            request_id=_calls.new_request_id(request_id), lease_id=lease_id, reason=reason, comment=comment
        )
        response = await self._caller.call(lambda seconds: self._stub.FlagTask(request, timeout=seconds), timeout)
        return response.task

    async def flags(self, *, queue: str = "", timeout: float = _calls.QUICK) -> AsyncIterator[preference_v1.Flag]:
        """All flags, newest first; optionally of one queue. `timeout` is seconds per page."""

        def fetch(token: str) -> Awaitable[preference_v1.ListFlagsResponse]:
            request = preference_v1.ListFlagsRequest(page_token=token, queue=queue)
            return self._caller.call(lambda seconds: self._stub.ListFlags(request, timeout=seconds), timeout)

        async for page in _calls.pages(fetch):
            for flag in page.flags:
                yield flag

    async def resolve_task(
        self,
        task_id: str,
        resolution: preference_v1.TaskResolution.ValueType,
        *,
        request_id: str | None = None,
        timeout: float = _calls.QUICK,
    ) -> preference_v1.Task:
        """Reopens a flagged task, or cancels it."""
        request = preference_v1.ResolveTaskRequest(
            request_id=_calls.new_request_id(request_id), task_id=task_id, resolution=resolution
        )
        response = await self._caller.call(lambda seconds: self._stub.ResolveTask(request, timeout=seconds), timeout)
        return response.task

    async def cancel_tasks(self, queue: str, *, request_id: str | None = None, timeout: float = _calls.QUICK) -> int:
        """Cancels the open tasks of a queue and returns their number; existing judgements are kept."""
        request = preference_v1.CancelTasksRequest(request_id=_calls.new_request_id(request_id), queue=queue)
        response = await self._caller.call(lambda seconds: self._stub.CancelTasks(request, timeout=seconds), timeout)
        return response.cancelled

    async def queue(
        self, name: str, *, with_agreement: bool = False, timeout: float = _calls.QUICK
    ) -> preference_v1.GetQueueResponse:
        """The progress of a queue, or, for a name that ends in `/`, of all queues with this prefix. `with_agreement`
        adds alpha, which reads all feedback of the queue."""
        request = preference_v1.GetQueueRequest(queue=name, with_agreement=with_agreement)
        return await self._caller.call(lambda seconds: self._stub.GetQueue(request, timeout=seconds), timeout)

    async def submit(
        self,
        feedback: preference_v1.Feedback,
        *,
        lease_id: str = "",
        request_id: str | None = None,
        timeout: float = _calls.QUICK,
    ) -> preference_v1.Feedback:
        """Stores a judgement, with or without a leased task, and returns it with its id."""
        request = preference_v1.SubmitFeedbackRequest(
            request_id=_calls.new_request_id(request_id), feedback=feedback, lease_id=lease_id
        )
        response = await self._caller.call(lambda seconds: self._stub.SubmitFeedback(request, timeout=seconds), timeout)
        return response.feedback

    async def retract(
        self,
        feedback_id: str,
        annotator: preference_v1.Annotator,
        *,
        lease_again: bool = False,
        ttl_seconds: float = 600,
        request_id: str | None = None,
        timeout: float = _calls.QUICK,
    ) -> preference_v1.RetractFeedbackResponse:
        """Retracts an annotator's feedback (undo); with `lease_again` leases its task to them for `ttl_seconds`."""
        request = preference_v1.RetractFeedbackRequest(
            request_id=_calls.new_request_id(request_id),
            feedback_id=feedback_id,
            annotator=annotator,
            lease_again=lease_again,
            ttl=_duration(ttl_seconds),
        )
        return await self._caller.call(lambda seconds: self._stub.RetractFeedback(request, timeout=seconds), timeout)

    async def feedback(
        self,
        *,
        annotator: preference_v1.Annotator | None = None,
        prompt_id: str = "",
        task_id: str = "",
        queue: str = "",
        timeout: float = _calls.QUICK,
    ) -> AsyncIterator[preference_v1.Feedback]:
        """Feedback, newest first, including corrected and retracted feedback. `timeout` is seconds per page."""

        def fetch(token: str) -> Awaitable[preference_v1.ListFeedbackResponse]:
            request = preference_v1.ListFeedbackRequest(
                page_token=token, annotator=annotator, prompt_id=prompt_id, task_id=task_id, queue=queue
            )
            return self._caller.call(lambda seconds: self._stub.ListFeedback(request, timeout=seconds), timeout)

        async for page in _calls.pages(fetch):
            for feedback in page.feedback:
                yield feedback

    async def completion(
        self, completion_id: str, *, timeout: float = _calls.QUICK
    ) -> preference_v1.GetCompletionResponse:
        """An answer with its prompt. NotFound if there is none."""
        request = preference_v1.GetCompletionRequest(completion_id=completion_id)
        return await self._caller.call(lambda seconds: self._stub.GetCompletion(request, timeout=seconds), timeout)

    async def delete_prompts(
        self, prompt_ids: Sequence[str], *, request_id: str | None = None, timeout: float = _calls.SCORE
    ) -> preference_v1.DeletePromptsResponse:
        """Deletes prompts, all or none; existing snapshots keep them."""
        request = preference_v1.DeletePromptsRequest(
            request_id=_calls.new_request_id(request_id), prompt_ids=prompt_ids
        )
        return await self._caller.call(lambda seconds: self._stub.DeletePrompts(request, timeout=seconds), timeout)

    async def import_records(
        self,
        records: Iterable[preference_v1.ImportRecord],
        *,
        request_id: str | None = None,
        timeout: float = _calls.STREAM,
    ) -> preference_v1.ImportRecordsResponse:
        """Imports complete records, all or none. `accord.formats` reads them from files.

        The iterable is collected first; if it raises, nothing is sent. InvalidArgument names the record, counted from
        0, and the field.
        """
        chunks = list(_calls.chunked(records)) or [[]]
        messages = [preference_v1.ImportRecordsRequest(records=chunk) for chunk in chunks]
        messages[0].request_id = _calls.new_request_id(request_id)
        return await self._caller.call(
            lambda seconds: self._stub.ImportRecords(iter(messages), timeout=seconds), timeout
        )

    async def create_snapshot(
        self,
        kind: preference_v1.SnapshotKind.ValueType,
        filter: preference_v1.SnapshotFilter | None = None,
        *,
        request_id: str | None = None,
        timeout: float = _calls.SCORE,
    ) -> preference_v1.Snapshot:
        """Freezes the records that match the filter now. The same content has the same digest."""
        request = preference_v1.CreateSnapshotRequest(
            request_id=_calls.new_request_id(request_id), kind=kind, filter=filter
        )
        response = await self._caller.call(lambda seconds: self._stub.CreateSnapshot(request, timeout=seconds), timeout)
        return response.snapshot

    async def snapshot(self, digest: str, *, timeout: float = _calls.QUICK) -> preference_v1.Snapshot:
        """The snapshot. NotFound if there is none."""
        request = preference_v1.GetSnapshotRequest(digest=digest)
        response = await self._caller.call(lambda seconds: self._stub.GetSnapshot(request, timeout=seconds), timeout)
        return response.snapshot

    async def snapshots(self, *, timeout: float = _calls.QUICK) -> AsyncIterator[preference_v1.Snapshot]:
        """All snapshots, newest first. `timeout` is seconds per page."""

        def fetch(token: str) -> Awaitable[preference_v1.ListSnapshotsResponse]:
            request = preference_v1.ListSnapshotsRequest(page_token=token)
            return self._caller.call(lambda seconds: self._stub.ListSnapshots(request, timeout=seconds), timeout)

        async for page in _calls.pages(fetch):
            for snapshot in page.snapshots:
                yield snapshot

    async def snapshot_origins(
        self, digest: str, *, timeout: float = _calls.SCORE
    ) -> preference_v1.GetSnapshotOriginsResponse:
        """The annotators, sources and weights that a snapshot's records come from."""
        request = preference_v1.GetSnapshotOriginsRequest(digest=digest)
        return await self._caller.call(lambda seconds: self._stub.GetSnapshotOrigins(request, timeout=seconds), timeout)

    async def snapshot_uses(
        self,
        *,
        annotator: preference_v1.Annotator | None = None,
        prompt_id: str | None = None,
        completion_id: str | None = None,
        timeout: float = _calls.SCORE,
    ) -> list[preference_v1.SnapshotUse]:
        """The snapshots with feedback of an annotator, on a prompt or on a completion (give one), newest first."""
        request = preference_v1.ListSnapshotUsesRequest(annotator=annotator)
        if prompt_id is not None:
            request.prompt_id = prompt_id
        if completion_id is not None:
            request.completion_id = completion_id
        response = await self._caller.call(
            lambda seconds: self._stub.ListSnapshotUses(request, timeout=seconds), timeout
        )
        return list(response.uses)

    async def export_snapshot(
        self,
        digest: str,
        *,
        split: preference_v1.Split.ValueType | None = None,
        weighting: preference_v1.Weighting.ValueType | None = None,
        timeout: float = _calls.STREAM,
    ) -> AsyncIterator[preference_v1.Record]:
        """A snapshot's records in canonical order, of one side of the split or both; optionally weighted.

        A broken stream is resumed, since a snapshot never changes.
        """
        request = preference_v1.ExportSnapshotRequest(
            digest=digest,
            split=split or preference_v1.SPLIT_UNSPECIFIED,
            weighting=weighting or preference_v1.WEIGHTING_UNSPECIFIED,
        )
        given = 0

        async def rest(seconds: float) -> AsyncIterator[preference_v1.Record]:
            nonlocal given
            skip = given
            async for response in self._stub.ExportSnapshot(request, timeout=seconds):
                for record in response.records:
                    if skip:
                        skip -= 1
                        continue
                    given += 1
                    yield record

        async for record in self._caller.resumed(rest, timeout):
            yield record

    async def export_records(
        self,
        kind: preference_v1.SnapshotKind.ValueType,
        *,
        filter: preference_v1.SnapshotFilter | None = None,
        split: preference_v1.Split.ValueType | None = None,
        timeout: float = _calls.STREAM,
    ) -> AsyncIterator[preference_v1.Record]:
        """The records that match a filter now, without a snapshot. A stream that breaks midway is an error."""
        request = preference_v1.ExportRecordsRequest(
            kind=kind, filter=filter, split=split or preference_v1.SPLIT_UNSPECIFIED
        )

        def ask(seconds: float) -> AsyncIterator[preference_v1.ExportRecordsResponse]:
            return aiter(self._stub.ExportRecords(request, timeout=seconds))

        async for response in self._caller.stream(ask, timeout):
            for record in response.records:
                yield record

    async def stats(self, *, timeout: float = _calls.QUICK) -> preference_v1.GetStatsResponse:
        """Counts by kind, source, split and annotator kind."""
        request = preference_v1.GetStatsRequest()
        return await self._caller.call(lambda seconds: self._stub.GetStats(request, timeout=seconds), timeout)


def _duration(seconds: float) -> Duration:
    found = Duration()
    found.FromMilliseconds(round(seconds * 1000))
    return found
