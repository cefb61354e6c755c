"""Flags: reports that something is wrong with a task, and their resolution."""

from __future__ import annotations

from accord.errors import FailedPrecondition, InvalidArgument
from accord.preference import v1 as preference_v1
from accord_preference import converters
from accord_preference.context import Context, not_found
from accord_preference.domain.judgement import read_text
from accord_preference.storage.store import FLAGGED, FlagRow, Reader, TaskRow, Writer
from accord_preference.tasks.tasks import find_lease
from accord_runtime.serving.paging import read_page

STATES = {
    preference_v1.TASK_RESOLUTION_REOPEN: preference_v1.TASK_STATE_OPEN,
    preference_v1.TASK_RESOLUTION_CANCEL: preference_v1.TASK_STATE_CANCELLED,
}


class Flags:
    """The part of the service that handles flags."""

    def __init__(self, context: Context):
        self._context = context

    async def flag(self, request: preference_v1.FlagTaskRequest) -> preference_v1.FlagTaskResponse:
        """Returns a leased task with a flag. A task with `flags_to_suspend` flags is suspended."""
        comment = read_text(request.comment, "comment")
        if request.reason not in preference_v1.FlagReason.values():
            raise InvalidArgument.at("reason", f"is {request.reason}; must be a FlagReason")
        if request.reason == preference_v1.FLAG_REASON_OTHER and not comment.strip():
            raise InvalidArgument.at("comment", "must describe the problem if the reason is FLAG_REASON_OTHER")

        async def change(tx: Writer) -> preference_v1.FlagTaskResponse:
            now_us = self._context.now_us()
            lease = await find_lease(tx, request.lease_id)
            await self._task(tx, lease.task_id)  # locks the task, so that its flags are counted one by one
            await tx.end_lease(lease.lease_id, FLAGGED)
            who = (lease.annotator_id, lease.annotator_kind)
            count = await tx.add_flag(FlagRow(lease.task_id, *who, request.reason, comment, now_us))
            task = await self._task(tx, lease.task_id)
            if count >= self._context.settings.flags_to_suspend and task.state == preference_v1.TASK_STATE_OPEN:
                await tx.set_task(task.task_id, preference_v1.TASK_STATE_FLAGGED)
            return preference_v1.FlagTaskResponse(task=converters.task(await self._task(tx, lease.task_id)))

        return await self._context.once.run(request.request_id, request, preference_v1.FlagTaskResponse, change)

    async def page(self, request: preference_v1.ListFlagsRequest) -> preference_v1.ListFlagsResponse:
        """One page of flags, newest first."""
        page = read_page(request, 0, "flags", request.queue)
        async with self._context.store.reading() as tx:
            found = await tx.list_flags(request.queue, page.after, page.size + 1)
        rows, token = page.cut(found, lambda flagged: flagged[0].number)
        return preference_v1.ListFlagsResponse(
            flags=[converters.flag(row, task) for row, task in rows], next_page_token=token
        )

    async def resolve(self, request: preference_v1.ResolveTaskRequest) -> preference_v1.ResolveTaskResponse:
        """Reopens or cancels a flagged task."""
        state = STATES.get(request.resolution)
        if state is None:
            raise InvalidArgument.at("resolution", "must be TASK_RESOLUTION_REOPEN or TASK_RESOLUTION_CANCEL")

        async def change(tx: Writer) -> preference_v1.ResolveTaskResponse:
            task = await self._task(tx, request.task_id)
            if not task.flags or task.state not in (preference_v1.TASK_STATE_OPEN, preference_v1.TASK_STATE_FLAGGED):
                name = preference_v1.TaskState.Name(preference_v1.TaskState.ValueType(task.state))
                raise FailedPrecondition(
                    f"task {task.task_id} has {task.flags} flags and is {name.removeprefix('TASK_STATE_').lower()}: "
                    "nothing to resolve",
                    reason="TASK_NOT_FLAGGED",
                    metadata={"task_id": task.task_id},
                )
            await tx.set_task(task.task_id, state)
            return preference_v1.ResolveTaskResponse(task=converters.whole_task(await self._task(tx, task.task_id)))

        return await self._context.once.run(request.request_id, request, preference_v1.ResolveTaskResponse, change)

    async def _task(self, tx: Reader, task_id: str) -> TaskRow:
        task = await tx.task(task_id)
        if task is None:
            raise not_found("task", task_id, "task_id")
        return task
