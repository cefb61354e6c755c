"""Annotation tasks: opened, leased to annotators one at a time, given back, withdrawn."""

from __future__ import annotations

import hashlib
import math
import secrets

from accord.errors import InvalidArgument
from accord.preference import v1 as preference_v1
from accord_preference import messages
from accord_preference.context import Context, check_annotator, judged_of, unknown
from accord_preference.once import content_of, once
from accord_preference.store import LeaseRow, TaskRow, Writer

# How many completions a task of each kind may have.
SIZES = {
    preference_v1.TASK_KIND_COMPARISON: (2, 2),
    preference_v1.TASK_KIND_RANKING: (2, None),
    preference_v1.TASK_KIND_RATING: (1, 1),
}


class Tasks:
    """The tasks' part of the service."""

    def __init__(self, context: Context):
        self._context = context

    async def create(self, request: preference_v1.CreateTasksRequest) -> preference_v1.CreateTasksResponse:
        """Opens tasks, all or none."""
        for index, task in enumerate(request.tasks):
            _check(task, f"tasks[{index}]")

        async def change(tx: Writer) -> preference_v1.CreateTasksResponse:
            new = []
            for index, task in enumerate(request.tasks):
                path = f"tasks[{index}]"
                fields = {name: f"{path}.completion_ids[{place}]" for place, name in enumerate(task.completion_ids)}
                await judged_of(tx, task.prompt_id, fields, f"{path}.prompt_id")
                new.append(_row(task, request.request_id, index))
            await tx.add_tasks(new)
            return preference_v1.CreateTasksResponse(tasks=[messages.task(row) for row in new])

        return await once(
            self._context, request.request_id, content_of(request), preference_v1.CreateTasksResponse, change
        )

    async def lease(self, request: preference_v1.LeaseTaskRequest) -> preference_v1.LeaseTaskResponse:
        """Hands an open task to an annotator, or nothing when there is none for them."""
        check_annotator(request.annotator, "annotator")
        ttl_us = self._ttl_us(request)
        annotator = request.annotator.annotator_id

        async def change(tx: Writer) -> preference_v1.LeaseTaskResponse:
            now_us = self._context.now_us()
            task = await tx.next_task(annotator, request.queue, now_us)
            if task is None:
                return preference_v1.LeaseTaskResponse()
            lease = LeaseRow(secrets.token_hex(16), task.task_id, annotator, now_us + ttl_us)
            await tx.add_lease(lease)
            prompts = await tx.prompts([task.prompt_id])
            answers = await tx.completions(task.completion_ids)
            found = messages.task_lease(task, prompts[task.prompt_id], answers, lease)
            return preference_v1.LeaseTaskResponse(lease=found)

        return await once(
            self._context,
            request.request_id,
            content_of(request),
            preference_v1.LeaseTaskResponse,
            change,
            keep=lambda response: response.HasField("lease"),
        )

    async def release(self, request: preference_v1.ReleaseTaskRequest) -> preference_v1.ReleaseTaskResponse:
        """Gives a task back; one whose lease has ended already is back."""

        async def change(tx: Writer) -> preference_v1.ReleaseTaskResponse:
            if await tx.lease(request.lease_id) is None:
                raise unknown("lease", request.lease_id, "lease_id")
            await tx.end_lease(request.lease_id)
            return preference_v1.ReleaseTaskResponse()

        return await once(
            self._context, request.request_id, content_of(request), preference_v1.ReleaseTaskResponse, change
        )

    async def cancel(self, request: preference_v1.CancelTasksRequest) -> preference_v1.CancelTasksResponse:
        """Withdraws a queue's open tasks; their leases end, answers are kept."""
        if not request.queue:
            raise InvalidArgument.at("queue", "must be set")

        async def change(tx: Writer) -> preference_v1.CancelTasksResponse:
            return preference_v1.CancelTasksResponse(cancelled=await tx.cancel_tasks(request.queue))

        return await once(
            self._context, request.request_id, content_of(request), preference_v1.CancelTasksResponse, change
        )

    async def queue(self, request: preference_v1.GetQueueRequest) -> preference_v1.GetQueueResponse:
        """How far a queue is; one that nobody used is empty."""
        if not request.queue:
            raise InvalidArgument.at("queue", "must be set")
        async with self._context.store.reading() as tx:
            found = await tx.queue(request.queue, self._context.now_us())
        return preference_v1.GetQueueResponse(
            open_tasks=found.open_tasks,
            done_tasks=found.done_tasks,
            cancelled_tasks=found.cancelled_tasks,
            leased_tasks=found.leased_tasks,
            feedback=found.feedback,
        )

    def _ttl_us(self, request: preference_v1.LeaseTaskRequest) -> int:
        settings = self._context.settings
        if not request.HasField("ttl"):
            return int(settings.lease_seconds * 1_000_000)
        seconds = request.ttl.seconds + request.ttl.nanos / 1e9
        if not math.isfinite(seconds) or not 0 < seconds <= settings.max_lease_seconds:
            raise InvalidArgument.at(
                "ttl", f"is {seconds:g} s; must be above 0 and at most {settings.max_lease_seconds:g} s"
            )
        return int(seconds * 1_000_000)


def _row(task: preference_v1.Task, request_id: str, index: int) -> TaskRow:
    # Derived from the request, so that a repeat names the same task.
    task_id = hashlib.sha256(f"accord.task.v1\n{request_id}\n{index}".encode()).hexdigest()
    redundancy = task.redundancy or 1
    ids = tuple(task.completion_ids)
    return TaskRow(task_id, task.kind, task.prompt_id, ids, redundancy, task.queue, preference_v1.TASK_STATE_OPEN)


def _check(task: preference_v1.Task, path: str) -> None:
    if task.kind not in SIZES:
        raise InvalidArgument.at(f"{path}.kind", "must be a comparison, a ranking or a rating")
    least, most = SIZES[task.kind]
    count = len(task.completion_ids)
    if count < least or (most is not None and count > most):
        wanted = f"{least}" if least == most else f"{least} or more"
        raise InvalidArgument.at(f"{path}.completion_ids", f"holds {count}; this kind of task judges {wanted}")
    for place, name in enumerate(task.completion_ids):
        if name in task.completion_ids[:place]:
            raise InvalidArgument.at(f"{path}.completion_ids[{place}]", "names the same completion again")
    if task.redundancy < 0:
        raise InvalidArgument.at(f"{path}.redundancy", f"is {task.redundancy}; must be 0 (for 1) or more")
