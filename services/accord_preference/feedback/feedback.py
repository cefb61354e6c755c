"""Submits, corrects, retracts and lists feedback. It is given alone or as the answer to a leased task."""

from __future__ import annotations

from accord.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from accord.preference import v1 as preference_v1
from accord_preference import converters
from accord_preference.annotators import admit, check_annotator
from accord_preference.context import Context, not_found
from accord_preference.domain.judgement import Judgement, read_criteria, read_judgement, read_text
from accord_preference.feedback.feedback_record import feedback_row, identified
from accord_preference.feedback.task_answers import answer, check_answers, check_criteria, supersede
from accord_preference.prompts import find_judged
from accord_preference.storage.store import RETRACTED, FeedbackRow, History, Writer
from accord_preference.tasks.tasks import lease_message, new_lease, read_ttl
from accord_runtime.serving.paging import read_page


class Feedback:
    """The part of the service that accepts feedback."""

    def __init__(self, context: Context):
        self._context = context

    async def submit(self, request: preference_v1.SubmitFeedbackRequest) -> preference_v1.SubmitFeedbackResponse:
        """Stores a judgement. Repeating the same judgement gives the same feedback. A different judgement for the same
        task is refused unless it corrects the first."""
        message = request.feedback
        check_annotator(message.annotator, "feedback.annotator")
        judgement = read_judgement(message, "feedback.")
        criteria = read_criteria(message.criteria, "feedback.", judgement.fields)
        comment = read_text(message.comment, "feedback.comment")
        if message.supersedes and request.lease_id:
            raise InvalidArgument.at("lease_id", "must be empty in a correction of feedback")
        if not message.supersedes and bool(message.task_id) != bool(request.lease_id):
            raise InvalidArgument.at(
                "lease_id",
                "goes with feedback.task_id. Set both for a leased task, or neither for other feedback",
            )

        async def change(tx: Writer) -> preference_v1.SubmitFeedbackResponse:
            now_us = self._context.now_us()
            await admit(tx, message.annotator, now_us)
            prompt, _ = await find_judged(tx, message.prompt_id, judgement.fields, "feedback.prompt_id")
            given = feedback_row(
                judgement,
                message.annotator,
                prompt,
                message.source,
                now_us,
                criteria=criteria,
                comment=comment,
                supersedes=message.supersedes,
            )
            if message.supersedes:
                stored = await _correct(tx, message, judgement, given)
            elif message.task_id:
                stored = await answer(tx, request, judgement, given)
            else:
                stored = await _keep(tx, identified(given))
            return preference_v1.SubmitFeedbackResponse(feedback=converters.feedback(stored))

        return await self._context.once.run(request.request_id, request, preference_v1.SubmitFeedbackResponse, change)

    async def retract(self, request: preference_v1.RetractFeedbackRequest) -> preference_v1.RetractFeedbackResponse:
        """Retracts feedback. Its task needs an answer again and can be leased to the annotator on request."""
        check_annotator(request.annotator, "annotator")
        ttl_us = read_ttl(self._context, request)

        async def change(tx: Writer) -> preference_v1.RetractFeedbackResponse:
            now_us = self._context.now_us()
            known = await _own(tx, request.feedback_id, request.annotator, "feedback_id")
            if known.superseded_by:
                raise _superseded(known, "feedback_id")
            task = await tx.task(known.task_id) if known.task_id else None
            if known.superseded_by is None:
                await supersede(tx, known, RETRACTED)
                if task is not None:
                    await tx.uncount_answer(task.task_id)
                    task = await tx.task(task.task_id)
            response = preference_v1.RetractFeedbackResponse(
                feedback=converters.feedback(known._replace(superseded_by=RETRACTED))
            )
            if request.lease_again and task is not None and task.state == preference_v1.TASK_STATE_OPEN:
                await admit(tx, request.annotator, now_us)
                lease = new_lease(task, request.annotator, now_us, ttl_us)
                await tx.add_lease(lease)
                response.lease.CopyFrom(await lease_message(tx, lease, now_us))
            return response

        return await self._context.once.run(request.request_id, request, preference_v1.RetractFeedbackResponse, change)

    async def page(self, request: preference_v1.ListFeedbackRequest) -> preference_v1.ListFeedbackResponse:
        """One page of feedback, newest first, including corrected and retracted feedback."""
        who = None
        if request.HasField("annotator"):
            check_annotator(request.annotator, "annotator")
            who = (request.annotator.annotator_id, int(request.annotator.kind))
        history = History(who, request.prompt_id, request.task_id, request.queue)
        page = read_page(request, 0, "feedback", *vars(history).values())
        async with self._context.store.reading() as tx:
            found = await tx.list_feedback(history, page.after, page.size + 1)
        rows, token = page.cut(found, lambda numbered: numbered[0])
        return preference_v1.ListFeedbackResponse(
            feedback=[converters.feedback(row) for _, row in rows], next_page_token=token
        )


async def _keep(tx: Writer, row: FeedbackRow) -> FeedbackRow:
    """Stores a judgement unless it is stored already."""
    known = await tx.feedback(row.feedback_id)
    if known is None:
        await tx.add_feedback([row])
    return known or row


async def _correct(
    tx: Writer, message: preference_v1.Feedback, judgement: Judgement, given: FeedbackRow
) -> FeedbackRow:
    """Replaces an earlier judgement of the same annotator."""
    earlier = await _own(tx, message.supersedes, message.annotator, "feedback.supersedes")
    if earlier.prompt_id != given.prompt_id:
        raise InvalidArgument.at("feedback.prompt_id", f"the corrected feedback is about prompt {earlier.prompt_id}")
    if message.task_id not in ("", earlier.task_id):
        raise InvalidArgument.at("feedback.task_id", "is not the task of the corrected feedback. Leave it out")
    if earlier.task_id is not None:
        task = await tx.task(earlier.task_id)
        assert task is not None  # feedback names its task by a foreign key
        check_answers(task, judgement)
        check_criteria(task, given)
    row = identified(
        given._replace(
            task_id=earlier.task_id,
            queue=earlier.queue,
            late=earlier.late,
            gold=earlier.gold,
            elapsed_us=earlier.elapsed_us,
        )
    )
    if earlier.superseded_by == row.feedback_id:
        return await tx.feedback(row.feedback_id) or row
    if earlier.superseded_by is not None:
        raise _superseded(earlier, "feedback.supersedes")
    # Supersede the old one first: an annotator has at most one active answer to a task at any time.
    await supersede(tx, earlier, row.feedback_id)
    return await _keep(tx, row)


async def _own(tx: Writer, feedback_id: str, annotator: preference_v1.Annotator, path: str) -> FeedbackRow:
    """Feedback of this annotator. NotFound; PermissionDenied, NOT_YOUR_FEEDBACK, for feedback of another annotator."""
    known = await tx.feedback(feedback_id)
    if known is None:
        raise not_found("feedback", feedback_id, path)
    if (known.annotator_id, known.annotator_kind) != (annotator.annotator_id, annotator.kind):
        raise PermissionDenied(
            f"{path}: {feedback_id} was not given by {annotator.annotator_id}. Annotators change only their own",
            reason="NOT_YOUR_FEEDBACK",
            metadata={"feedback_id": feedback_id},
        )
    return known


def _superseded(row: FeedbackRow, path: str) -> FailedPrecondition:
    became = f"corrected by {row.superseded_by}; change that feedback instead" if row.superseded_by else "retracted"
    return FailedPrecondition(
        f"{path}: {row.feedback_id} was {became}",
        reason="FEEDBACK_SUPERSEDED",
        metadata={"feedback_id": row.feedback_id, "superseded_by": row.superseded_by or ""},
    )
