"""Feedback as it is given: on its own, or as the answer to a leased task."""

from __future__ import annotations

from dataclasses import dataclass

from accord.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from accord.preference import v1 as preference_v1
from accord_preference import canonical, messages
from accord_preference.context import Context, check_annotator, judged_of, unknown
from accord_preference.judgement import KIND_NAMES, Judgement, read_judgement
from accord_preference.once import content_of, once
from accord_preference.store import FeedbackRow, LeaseRow, PromptRow, TaskRow, Writer


@dataclass(frozen=True)
class Verdict:
    """A valid judgement and who gave it; `task_id` "" without a task."""

    annotator_id: str
    annotator_kind: int
    judgement: Judgement
    source: str
    task_id: str = ""
    queue: str = ""
    late: bool = False


def feedback_row(verdict: Verdict, prompt: PromptRow, now_us: int) -> FeedbackRow:
    """The row to store, with its id and the digest under which snapshots know it."""
    value = verdict.judgement.value
    who = (verdict.annotator_id, verdict.annotator_kind)
    return FeedbackRow(
        feedback_id=canonical.feedback_id(prompt.prompt_id, *who, value, verdict.task_id),
        prompt_id=prompt.prompt_id,
        annotator_id=verdict.annotator_id,
        annotator_kind=verdict.annotator_kind,
        kind=verdict.judgement.kind,
        judgement=canonical.canonical_json(value),
        completion_ids=verdict.judgement.completion_ids,
        task_id=verdict.task_id or None,
        queue=verdict.queue,
        source=verdict.source,
        label=verdict.source or prompt.source,
        created_us=now_us,
        late=verdict.late,
        split=prompt.split,
        record_digest=canonical.feedback_record_digest(
            prompt.prompt_id, prompt.split, *who, value, verdict.source, verdict.late
        ),
    )


class Judging:
    """The part of the service that takes feedback."""

    def __init__(self, context: Context):
        self._context = context

    async def submit(self, request: preference_v1.SubmitFeedbackRequest) -> preference_v1.SubmitFeedbackResponse:
        """Stores a judgement. The same one again is the same feedback; another one for the same task is refused."""
        message = request.feedback
        check_annotator(message.annotator, "feedback.annotator")
        judgement = read_judgement(message, "feedback.")
        if bool(message.task_id) != bool(request.lease_id):
            raise InvalidArgument.at(
                "lease_id", "goes together with feedback.task_id: give both for a leased task, none for other feedback"
            )

        async def change(tx: Writer) -> preference_v1.SubmitFeedbackResponse:
            prompt, _ = await judged_of(tx, message.prompt_id, judgement.fields, "feedback.prompt_id")
            stored = await self._store(tx, request, judgement, prompt)
            return preference_v1.SubmitFeedbackResponse(feedback=messages.feedback(stored))

        return await once(
            self._context, request.request_id, content_of(request), preference_v1.SubmitFeedbackResponse, change
        )

    async def _store(
        self, tx: Writer, request: preference_v1.SubmitFeedbackRequest, judgement: Judgement, prompt: PromptRow
    ) -> FeedbackRow:
        message, now_us = request.feedback, self._context.now_us()
        who = message.annotator
        verdict = Verdict(who.annotator_id, who.kind, judgement, message.source)
        lease = None
        if message.task_id:
            task, lease = await self._leased(tx, request, judgement)
            late = lease.ended or lease.expire_us <= now_us
            verdict = Verdict(who.annotator_id, who.kind, judgement, message.source, task.task_id, task.queue, late)
        row = feedback_row(verdict, prompt, now_us)
        if (known := await tx.feedback(row.feedback_id)) is not None:
            return known
        if lease is not None:
            if await tx.answer(lease.task_id, lease.annotator_id) is not None:
                raise AlreadyExists(
                    f"{lease.annotator_id} has answered task {lease.task_id} already, and otherwise; the first is kept",
                    reason="TASK_ANSWERED",
                    metadata={"task_id": lease.task_id},
                )
            await tx.end_lease(lease.lease_id)
            await tx.count_answer(lease.task_id)
        await tx.add_feedback([row])
        return row

    async def _leased(
        self, tx: Writer, request: preference_v1.SubmitFeedbackRequest, judgement: Judgement
    ) -> tuple[TaskRow, LeaseRow]:
        message = request.feedback
        task = await tx.task(message.task_id)
        if task is None:
            raise unknown("task", message.task_id, "feedback.task_id")
        lease = await tx.lease(request.lease_id)
        if lease is None:
            raise unknown("lease", request.lease_id, "lease_id")
        if lease.task_id != task.task_id or lease.annotator_id != message.annotator.annotator_id:
            raise FailedPrecondition(
                f"lease {lease.lease_id} is for {lease.annotator_id} on task {lease.task_id}, not for "
                f"{message.annotator.annotator_id} on {task.task_id}",
                reason="LEASE_MISMATCH",
                metadata={"annotator_id": lease.annotator_id, "task_id": lease.task_id},
            )
        if message.prompt_id != task.prompt_id:
            raise InvalidArgument.at("feedback.prompt_id", f"the task is about prompt {task.prompt_id}")
        name = KIND_NAMES[preference_v1.TaskKind.ValueType(task.kind)]
        if judgement.kind != task.kind:
            raise InvalidArgument.at("feedback.judgement", f"the task asks for a {name}")
        missing = [one for one in task.completion_ids if one not in judgement.fields]
        if missing:
            raise InvalidArgument.at(f"feedback.{name}", f"does not judge the task's completion {missing[0]}")
        for one, field in judgement.fields.items():
            if one not in task.completion_ids:
                raise InvalidArgument.at(field, f"{one} is not in the task")
        return task, lease
