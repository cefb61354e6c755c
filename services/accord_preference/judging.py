"""Feedback as it is given: on its own, or as the answer to a leased task; corrected, and taken back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from accord.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, PermissionDenied
from accord.preference import v1 as preference_v1
from accord_preference import canonical, messages
from accord_preference.context import Context, admit, check_annotator, judged_of, unknown
from accord_preference.forms import criteria_of
from accord_preference.judgement import KIND_NAMES, Judgement, read_criteria, read_judgement, read_text
from accord_preference.once import content_of, once
from accord_preference.paging import page_size, page_token, read_token
from accord_preference.store import ANSWERED, RETRACTED, FeedbackRow, History, LeaseRow, PromptRow, TaskRow, Writer
from accord_preference.tasks import find_lease, lease_message, new_lease, read_ttl


@dataclass(frozen=True)
class Verdict:
    """A valid judgement and who gave it; `task_id` "" without a task. `criteria`: canonical ratings."""

    annotator_id: str
    annotator_kind: int
    judgement: Judgement
    source: str
    task_id: str = ""
    queue: str = ""
    late: bool = False
    gold: bool = False
    elapsed_us: int | None = None
    criteria: list[dict[str, Any]] = field(default_factory=list)
    comment: str = ""
    supersedes: str = ""


def feedback_row(verdict: Verdict, prompt: PromptRow, now_us: int) -> FeedbackRow:
    """The row to store, with its id and the digest under which snapshots know it."""
    judgement = canonical.canonical_json(verdict.judgement.value)
    who = (verdict.annotator_id, verdict.annotator_kind)
    said = {"criteria": verdict.criteria, "comment": verdict.comment}
    said = {name: kept for name, kept in said.items() if kept}
    identity = said | ({"supersedes": verdict.supersedes} if verdict.supersedes else {})
    return FeedbackRow(
        feedback_id=canonical.feedback_id(prompt.prompt_id, *who, judgement, verdict.task_id, identity),
        prompt_id=prompt.prompt_id,
        annotator_id=verdict.annotator_id,
        annotator_kind=verdict.annotator_kind,
        kind=verdict.judgement.kind,
        judgement=judgement,
        completion_ids=verdict.judgement.completion_ids,
        task_id=verdict.task_id or None,
        queue=verdict.queue,
        source=verdict.source,
        label=verdict.source or prompt.source,
        created_us=now_us,
        late=verdict.late,
        split=prompt.split,
        record_digest=canonical.feedback_record_digest(
            prompt.prompt_id, prompt.split, *who, judgement, verdict.source, verdict.late, said
        ),
        comment=verdict.comment,
        criteria=canonical.canonical_json(verdict.criteria) if verdict.criteria else "",
        supersedes=verdict.supersedes or None,
        elapsed_us=verdict.elapsed_us,
        gold=verdict.gold,
    )


class Judging:
    """The part of the service that takes feedback."""

    def __init__(self, context: Context):
        self._context = context

    async def submit(self, request: preference_v1.SubmitFeedbackRequest) -> preference_v1.SubmitFeedbackResponse:
        """Stores a judgement. The same one again is the same feedback; another one for the same task is refused, unless
        it says that it corrects the first."""
        message = request.feedback
        check_annotator(message.annotator, "feedback.annotator")
        judgement = read_judgement(message, "feedback.")
        who = message.annotator
        verdict = Verdict(
            who.annotator_id,
            who.kind,
            judgement,
            message.source,
            criteria=read_criteria(message.criteria, "feedback.", judgement.fields),
            comment=read_text(message.comment, "feedback.comment"),
            supersedes=message.supersedes,
        )
        if message.supersedes and request.lease_id:
            raise InvalidArgument.at("lease_id", "is not needed to correct feedback; leave it out")
        if not message.supersedes and bool(message.task_id) != bool(request.lease_id):
            raise InvalidArgument.at(
                "lease_id", "goes together with feedback.task_id: give both for a leased task, none for other feedback"
            )

        async def change(tx: Writer) -> preference_v1.SubmitFeedbackResponse:
            now_us = self._context.now_us()
            await admit(tx, who, now_us)
            prompt, _ = await judged_of(tx, message.prompt_id, judgement.fields, "feedback.prompt_id")
            if message.supersedes:
                stored = await _correct(tx, message, verdict, prompt, now_us)
            elif message.task_id:
                stored = await _answer(tx, request, verdict, prompt, now_us)
            else:
                stored = await _keep(tx, feedback_row(verdict, prompt, now_us))
            return preference_v1.SubmitFeedbackResponse(feedback=messages.feedback(stored))

        return await once(
            self._context, request.request_id, content_of(request), preference_v1.SubmitFeedbackResponse, change
        )

    async def retract(self, request: preference_v1.RetractFeedbackRequest) -> preference_v1.RetractFeedbackResponse:
        """Takes feedback back; its task is wanted again, and leased to its annotator where that is asked for."""
        check_annotator(request.annotator, "annotator")
        ttl_us = read_ttl(self._context, request)

        async def change(tx: Writer) -> preference_v1.RetractFeedbackResponse:
            now_us = self._context.now_us()
            known = await _own(tx, request.feedback_id, request.annotator, "feedback_id")
            if known.superseded_by:
                raise _superseded(known, "feedback_id")
            task = await tx.task(known.task_id) if known.task_id else None
            if known.superseded_by is None:
                await _replace(tx, known, RETRACTED)
                if task is not None:
                    await tx.uncount_answer(task.task_id)
                    task = await tx.task(task.task_id)
            response = preference_v1.RetractFeedbackResponse(
                feedback=messages.feedback(replace(known, superseded_by=RETRACTED))
            )
            if request.lease_again and task is not None and task.state == preference_v1.TASK_STATE_OPEN:
                await admit(tx, request.annotator, now_us)
                lease = new_lease(task, request.annotator, now_us, ttl_us)
                await tx.add_lease(lease)
                response.lease.CopyFrom(await lease_message(tx, lease, now_us))
            return response

        return await once(
            self._context, request.request_id, content_of(request), preference_v1.RetractFeedbackResponse, change
        )

    async def page(self, request: preference_v1.ListFeedbackRequest) -> preference_v1.ListFeedbackResponse:
        """One page of feedback, newest first, whatever became of it."""
        size = page_size(request.page_size, 100, 1000)
        who = None
        if request.HasField("annotator"):
            check_annotator(request.annotator, "annotator")
            who = (request.annotator.annotator_id, int(request.annotator.kind))
        history = History(who, request.prompt_id, request.task_id, request.queue)
        query = ("feedback", *vars(history).values())
        before = read_token(request.page_token, 0, *query)
        async with self._context.store.reading() as tx:
            found = await tx.list_feedback(history, before, size + 1)
        more = len(found) > size
        return preference_v1.ListFeedbackResponse(
            feedback=[messages.feedback(row) for _, row in found[:size]],
            next_page_token=page_token(found[size - 1][0], *query) if more else "",
        )


async def _keep(tx: Writer, row: FeedbackRow) -> FeedbackRow:
    """Stores a judgement, or finds it stored."""
    known = await tx.feedback(row.feedback_id)
    if known is None:
        await tx.add_feedback([row])
    return known or row


async def _answer(
    tx: Writer, request: preference_v1.SubmitFeedbackRequest, verdict: Verdict, prompt: PromptRow, now_us: int
) -> FeedbackRow:
    """The answer to a leased task. After the lease's end, by this service's clock, it is kept and marked late."""
    task, lease = await _leased(tx, request, verdict.judgement)
    _check_criteria(task, verdict)
    before = await tx.answer(task.task_id, lease.annotator_id)
    taken_back = await tx.retracted(task.task_id, lease.annotator_id) if before is None else None
    verdict = replace(
        verdict,
        task_id=task.task_id,
        queue=task.queue,
        late=lease.ended or lease.expire_us <= now_us,
        gold=task.gold is not None,
        elapsed_us=now_us - lease.leased_us if lease.leased_us else None,
        supersedes=taken_back.feedback_id if taken_back is not None else before.supersedes or "" if before else "",
    )
    row = feedback_row(verdict, prompt, now_us)
    if before is not None:
        if before.feedback_id == row.feedback_id:
            return before
        raise AlreadyExists(
            f"{lease.annotator_id} has answered task {task.task_id} already, and otherwise; the first is kept. To "
            "correct it, name it in feedback.supersedes",
            reason="TASK_ANSWERED",
            metadata={"task_id": task.task_id, "feedback_id": before.feedback_id},
        )
    if lease.outcome == ANSWERED:
        raise FailedPrecondition(
            "the answer given under this lease was taken back; lease the task again",
            reason="LEASE_USED",
            metadata={"lease_id": lease.lease_id},
        )
    await tx.end_lease(lease.lease_id, ANSWERED)
    await tx.count_answer(task.task_id)
    await tx.add_feedback([row])
    if taken_back is not None:
        await _replace(tx, taken_back, row.feedback_id, retracted=True)
    return row


async def _correct(
    tx: Writer, message: preference_v1.Feedback, verdict: Verdict, prompt: PromptRow, now_us: int
) -> FeedbackRow:
    """Puts a judgement in the place of an earlier one of the same annotator."""
    earlier = await _own(tx, message.supersedes, message.annotator, "feedback.supersedes")
    if earlier.prompt_id != prompt.prompt_id:
        raise InvalidArgument.at("feedback.prompt_id", f"the corrected feedback is about prompt {earlier.prompt_id}")
    if message.task_id not in ("", earlier.task_id):
        raise InvalidArgument.at("feedback.task_id", "is not the task of the corrected feedback; leave it out")
    if earlier.task_id is not None:
        task = await tx.task(earlier.task_id)
        assert task is not None  # feedback names its task by a foreign key
        _check_answers(task, verdict.judgement)
        _check_criteria(task, verdict)
    verdict = replace(
        verdict,
        task_id=earlier.task_id or "",
        queue=earlier.queue,
        late=earlier.late,
        gold=earlier.gold,
        elapsed_us=earlier.elapsed_us,
    )
    row = feedback_row(verdict, prompt, now_us)
    if earlier.superseded_by == row.feedback_id:
        return await tx.feedback(row.feedback_id) or row
    if earlier.superseded_by is not None:
        raise _superseded(earlier, "feedback.supersedes")
    # First the old one: of an annotator's answers to a task one is in force at any time.
    await _replace(tx, earlier, row.feedback_id)
    return await _keep(tx, row)


async def _replace(tx: Writer, row: FeedbackRow, by: str, *, retracted: bool = False) -> None:
    """Takes feedback out of force. Aborted, so that the transaction runs again, where another was faster."""
    if not await tx.supersede(row.feedback_id, by, retracted=retracted):
        raise Aborted(
            f"{row.feedback_id} was changed by another call meanwhile; repeat this one", reason="DATABASE_CONFLICT"
        )


async def _own(tx: Writer, feedback_id: str, annotator: preference_v1.Annotator, path: str) -> FeedbackRow:
    """An annotator's own feedback. NotFound; PermissionDenied for that of somebody else."""
    known = await tx.feedback(feedback_id)
    if known is None:
        raise unknown("feedback", feedback_id, path)
    if (known.annotator_id, known.annotator_kind) != (annotator.annotator_id, annotator.kind):
        raise PermissionDenied(
            f"{path}: {feedback_id} was not given by {annotator.annotator_id}; annotators change their own only",
            reason="NOT_YOUR_FEEDBACK",
            metadata={"feedback_id": feedback_id},
        )
    return known


def _superseded(row: FeedbackRow, path: str) -> FailedPrecondition:
    became = f"corrected by {row.superseded_by}: change that one" if row.superseded_by else "taken back"
    return FailedPrecondition(
        f"{path}: {row.feedback_id} was {became}",
        reason="FEEDBACK_SUPERSEDED",
        metadata={"feedback_id": row.feedback_id, "superseded_by": row.superseded_by or ""},
    )


async def _leased(
    tx: Writer, request: preference_v1.SubmitFeedbackRequest, judgement: Judgement
) -> tuple[TaskRow, LeaseRow]:
    message = request.feedback
    task = await tx.task(message.task_id)
    if task is None:
        raise unknown("task", message.task_id, "feedback.task_id")
    lease = await find_lease(tx, request.lease_id)
    # Leases of the first schema know no kind.
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
    _check_answers(task, judgement)
    return task, lease


def _check_answers(task: TaskRow, judgement: Judgement) -> None:
    """InvalidArgument where a judgement is of another kind than asked, or not of exactly the task's completions."""
    name = KIND_NAMES[preference_v1.TaskKind.ValueType(task.kind)]
    if judgement.kind != task.kind:
        raise InvalidArgument.at("feedback.judgement", f"the task asks for a {name}")
    missing = [one for one in task.completion_ids if one not in judgement.fields]
    if missing:
        raise InvalidArgument.at(f"feedback.{name}", f"does not judge the task's completion {missing[0]}")
    for one, where in judgement.fields.items():
        if one not in task.completion_ids:
            raise InvalidArgument.at(where, f"{one} is not in the task")


def _check_criteria(task: TaskRow, verdict: Verdict) -> None:
    """InvalidArgument for a criterion that a task with criteria does not ask for."""
    asked = criteria_of(task)
    for number, rating in enumerate(verdict.criteria):
        if asked and rating["criterion"] not in asked:
            raise InvalidArgument.at(
                f"feedback.criteria[{number}].criterion",
                f"is {rating['criterion']!r}; the task asks for {', '.join(asked)}",
            )
