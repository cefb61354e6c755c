"""Creates annotation tasks, leases them to annotators, releases and cancels them."""

from __future__ import annotations

import hashlib
import math
import secrets

from accord.errors import FailedPrecondition, InvalidArgument
from accord.preference import v1 as preference_v1
from accord_preference import converters
from accord_preference.annotators import admit, check_annotator
from accord_preference.context import Context, not_found
from accord_preference.prompts import find_judged
from accord_preference.storage.store import SKIPPED, LeaseRow, Reader, TaskRow, Writer
from accord_preference.tasks.forms import read_form, read_gold

Timed = preference_v1.LeaseTaskRequest | preference_v1.RenewLeaseRequest | preference_v1.RetractFeedbackRequest

# How many completions a task of each kind may have.
SIZES = {
    preference_v1.TASK_KIND_COMPARISON: (2, 2),
    preference_v1.TASK_KIND_RANKING: (2, None),
    preference_v1.TASK_KIND_RATING: (1, 1),
}


class Tasks:
    """The part of the service that manages tasks."""

    def __init__(self, context: Context):
        self._context = context

    async def create(self, request: preference_v1.CreateTasksRequest) -> preference_v1.CreateTasksResponse:
        """Creates tasks, all or none."""
        for index, task in enumerate(request.tasks):
            _check(task, f"tasks[{index}]")

        async def change(tx: Writer) -> preference_v1.CreateTasksResponse:
            new = []
            for index, task in enumerate(request.tasks):
                path = f"tasks[{index}]"
                fields = {name: f"{path}.completion_ids[{place}]" for place, name in enumerate(task.completion_ids)}
                await find_judged(tx, task.prompt_id, fields, f"{path}.prompt_id")
                new.append(_row(task, request.request_id, index))
            await tx.add_tasks(new)
            return preference_v1.CreateTasksResponse(tasks=[converters.whole_task(row) for row in new])

        return await self._context.once.run(request.request_id, request, preference_v1.CreateTasksResponse, change)

    async def lease(self, request: preference_v1.LeaseTaskRequest) -> preference_v1.LeaseTaskResponse:
        """Leases an open task to an annotator; the response is empty if none is available."""
        check_annotator(request.annotator, "annotator")
        ttl_us = read_ttl(self._context, request)
        annotator = request.annotator

        async def change(tx: Writer) -> preference_v1.LeaseTaskResponse:
            now_us = self._context.now_us()
            await admit(tx, annotator, now_us)
            if request.resume:
                active = await tx.active_lease(annotator.annotator_id, request.queue, now_us)
                if active is not None:
                    return preference_v1.LeaseTaskResponse(lease=await lease_message(tx, active, now_us))
            for gold in self._gold_or_not(request.request_id):
                task = await tx.next_task(annotator.annotator_id, request.queue, now_us, gold=gold)
                if task is not None:
                    lease = new_lease(task, annotator, now_us, ttl_us)
                    await tx.add_lease(lease)
                    return preference_v1.LeaseTaskResponse(lease=await lease_message(tx, lease, now_us))
            return preference_v1.LeaseTaskResponse()

        return await self._context.once.run(
            request.request_id,
            request,
            preference_v1.LeaseTaskResponse,
            change,
            keep=lambda response: response.HasField("lease"),
        )

    async def renew(self, request: preference_v1.RenewLeaseRequest) -> preference_v1.RenewLeaseResponse:
        """Extends a lease that has not ended."""
        ttl_us = read_ttl(self._context, request)

        async def change(tx: Writer) -> preference_v1.RenewLeaseResponse:
            now_us = self._context.now_us()
            lease = await find_lease(tx, request.lease_id)
            if not lease.is_active(now_us):
                raise FailedPrecondition(
                    "the lease has ended. Lease a task again, or submit the answer, which is kept and marked late",
                    reason="LEASE_ENDED",
                    metadata={"lease_id": lease.lease_id},
                )
            renewed = lease._replace(expire_us=now_us + ttl_us)
            await tx.renew_lease(lease.lease_id, renewed.expire_us)
            return preference_v1.RenewLeaseResponse(lease=await lease_message(tx, renewed, now_us))

        return await self._context.once.run(request.request_id, request, preference_v1.RenewLeaseResponse, change)

    async def release(self, request: preference_v1.ReleaseTaskRequest) -> preference_v1.ReleaseTaskResponse:
        """Releases a task. A lease that has ended is left as it is."""

        async def change(tx: Writer) -> preference_v1.ReleaseTaskResponse:
            await find_lease(tx, request.lease_id)
            await tx.end_lease(request.lease_id, SKIPPED)
            return preference_v1.ReleaseTaskResponse()

        return await self._context.once.run(request.request_id, request, preference_v1.ReleaseTaskResponse, change)

    async def cancel(self, request: preference_v1.CancelTasksRequest) -> preference_v1.CancelTasksResponse:
        """Cancels the open tasks of a queue and ends their leases; answers are kept."""
        if not request.queue:
            raise InvalidArgument.at("queue", "must be set")

        async def change(tx: Writer) -> preference_v1.CancelTasksResponse:
            return preference_v1.CancelTasksResponse(cancelled=await tx.cancel_tasks(request.queue))

        return await self._context.once.run(request.request_id, request, preference_v1.CancelTasksResponse, change)

    def _gold_or_not(self, request_id: str) -> tuple[bool, bool]:
        """The order in which gold and ordinary tasks are tried. It depends on a hash of the request_id, so that
        annotators cannot predict gold tasks."""
        share = int.from_bytes(hashlib.sha256(f"accord.gold.v1\n{request_id}".encode()).digest()[:8], "big") / 2**64
        return (True, False) if share < self._context.settings.gold_share else (False, True)


def new_lease(task: TaskRow, annotator: preference_v1.Annotator, now_us: int, ttl_us: int) -> LeaseRow:
    """A lease that starts now."""
    return LeaseRow(
        lease_id=secrets.token_hex(16),
        task_id=task.task_id,
        annotator_id=annotator.annotator_id,
        expire_us=now_us + ttl_us,
        annotator_kind=annotator.kind,
        leased_us=now_us,
    )


async def find_lease(tx: Reader, lease_id: str) -> LeaseRow:
    """The lease. NotFound, LEASE_NOT_FOUND."""
    lease = await tx.lease(lease_id)
    if lease is None:
        raise not_found("lease", lease_id, "lease_id")
    return lease


async def lease_message(tx: Reader, lease: LeaseRow, now_us: int) -> preference_v1.TaskLease:
    """A lease with everything that its annotator needs."""
    task = await tx.task(lease.task_id)
    assert task is not None  # a lease names its task by a foreign key
    prompts = await tx.prompts([task.prompt_id])
    answers = await tx.completions(task.completion_ids)
    return converters.task_lease(task, prompts[task.prompt_id], answers, lease, now_us)


def read_ttl(context: Context, request: Timed) -> int:
    """The duration of a lease, microseconds: from the request, else from the settings. InvalidArgument."""
    settings = context.settings
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
    return TaskRow(
        task_id=task_id,
        kind=task.kind,
        prompt_id=task.prompt_id,
        completion_ids=tuple(task.completion_ids),
        redundancy=task.redundancy or 1,
        queue=task.queue,
        state=preference_v1.TASK_STATE_OPEN,
        gold=read_gold(task, f"tasks[{index}]."),
        turn=-task.priority,
        form=read_form(task, f"tasks[{index}]."),
    )


def _check(task: preference_v1.Task, path: str) -> None:
    if task.kind not in SIZES:
        raise InvalidArgument.at(f"{path}.kind", "must be a comparison, a ranking or a rating")
    least, most = SIZES[task.kind]
    count = len(task.completion_ids)
    if count < least or (most is not None and count > most):
        wanted = f"{least}" if least == most else f"{least} or more"
        raise InvalidArgument.at(f"{path}.completion_ids", f"has {count} completions; this kind of task needs {wanted}")
    for place, name in enumerate(task.completion_ids):
        if name in task.completion_ids[:place]:
            raise InvalidArgument.at(f"{path}.completion_ids[{place}]", "is the same completion as an earlier one")
    read_gold(task, f"{path}.")
    read_form(task, f"{path}.")
    if not -(2**31) < task.priority < 2**31:
        raise InvalidArgument.at(f"{path}.priority", "is too low")
    if task.redundancy < 0:
        raise InvalidArgument.at(f"{path}.redundancy", f"is {task.redundancy}; must be 0 (for 1) or more")
