"""Answers to leased tasks: checked against the task and the lease, and counted. Late answers are kept."""

from __future__ import annotations

from accord.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument
from accord.preference import v1 as preference_v1
from accord_preference.context import not_found
from accord_preference.domain.canonical import read_json
from accord_preference.domain.judgement import KIND_NAMES, Judgement
from accord_preference.feedback.feedback_record import identified
from accord_preference.storage.store import ANSWERED, FeedbackRow, LeaseRow, TaskRow, Writer
from accord_preference.tasks.forms import criteria_of
from accord_preference.tasks.tasks import find_lease


async def answer(
    tx: Writer, request: preference_v1.SubmitFeedbackRequest, judgement: Judgement, given: FeedbackRow
) -> FeedbackRow:
    """Stores the answer to a leased task. If the lease has ended by this service's clock, the answer is kept and marked
    late."""
    task, lease = await _leased(tx, request, judgement)
    check_criteria(task, given)
    before = await tx.answer(task.task_id, lease.annotator_id)
    retracted = await tx.retracted(task.task_id, lease.annotator_id) if before is None else None
    supersedes = before.supersedes if before is not None else retracted.feedback_id if retracted is not None else None
    row = identified(
        given._replace(
            task_id=task.task_id,
            queue=task.queue,
            late=not lease.is_active(given.created_us),
            gold=task.gold is not None,
            # 0 if the clock was set back in the meantime.
            elapsed_us=max(0, given.created_us - lease.leased_us) if lease.leased_us else None,
            supersedes=supersedes,
        )
    )
    if before is not None:
        if before.feedback_id == row.feedback_id:
            return before
        raise AlreadyExists(
            f"{lease.annotator_id} has already answered task {task.task_id} differently; the first answer is kept. To "
            "correct it, name it in feedback.supersedes",
            reason="TASK_ANSWERED",
            metadata={"task_id": task.task_id, "feedback_id": before.feedback_id},
        )
    if lease.outcome == ANSWERED:
        raise FailedPrecondition(
            "the answer given under this lease was retracted. Lease the task again",
            reason="LEASE_USED",
            metadata={"lease_id": lease.lease_id},
        )
    await tx.end_lease(lease.lease_id, ANSWERED)
    await tx.count_answer(task.task_id)
    await tx.add_feedback([row])
    if retracted is not None:
        await supersede(tx, retracted, row.feedback_id, retracted=True)
    return row


async def supersede(tx: Writer, row: FeedbackRow, by: str, *, retracted: bool = False) -> None:
    """Marks feedback as no longer active, like `Writer.supersede`. If another call was faster: Aborted, so that the
    transaction runs again."""
    if not await tx.supersede(row.feedback_id, by, retracted=retracted):
        raise Aborted(
            f"another call changed {row.feedback_id} at the same time. Repeat this call", reason="DATABASE_CONFLICT"
        )


async def _leased(
    tx: Writer, request: preference_v1.SubmitFeedbackRequest, judgement: Judgement
) -> tuple[TaskRow, LeaseRow]:
    message = request.feedback
    task = await tx.task(message.task_id)
    if task is None:
        raise not_found("task", message.task_id, "feedback.task_id")
    lease = await find_lease(tx, request.lease_id)
    # Leases of the first schema have no kind.
    same_kind = lease.annotator_kind in (0, message.annotator.kind)
    if lease.task_id != task.task_id or lease.annotator_id != message.annotator.annotator_id or not same_kind:
        raise FailedPrecondition(
            f"lease {lease.lease_id} is for {lease.annotator_id} on task {lease.task_id}, not for "
            f"{message.annotator.annotator_id} on {task.task_id}",
            reason="LEASE_MISMATCH",
            metadata={"annotator_id": lease.annotator_id, "task_id": lease.task_id},
        )
    if message.prompt_id != task.prompt_id:
        raise InvalidArgument.at("feedback.prompt_id", f"the task is about prompt {task.prompt_id}")
    check_answers(task, judgement)
    return task, lease


def check_answers(task: TaskRow, judgement: Judgement) -> None:
    """InvalidArgument if a judgement has a different kind than the task asks for, or does not judge exactly the task's
    completions."""
    name = KIND_NAMES[preference_v1.TaskKind.ValueType(task.kind)]
    if judgement.kind != task.kind:
        raise InvalidArgument.at("feedback.judgement", f"the task asks for a {name}")
    missing = [one for one in task.completion_ids if one not in judgement.fields]
    if missing:
        raise InvalidArgument.at(f"feedback.{name}", f"does not judge completion {missing[0]} of the task")
    for one, where in judgement.fields.items():
        if one not in task.completion_ids:
            raise InvalidArgument.at(where, f"{one} is not a completion of the task")


def check_criteria(task: TaskRow, given: FeedbackRow) -> None:
    """InvalidArgument if a task has criteria and a rating is for a different criterion."""
    asked = criteria_of(task)
    for number, rating in enumerate(read_json(given.criteria) if asked and given.criteria else ()):
        if rating["criterion"] not in asked:
            raise InvalidArgument.at(
                f"feedback.criteria[{number}].criterion",
                f"is {rating['criterion']!r}; the task asks for {', '.join(asked)}",
            )
