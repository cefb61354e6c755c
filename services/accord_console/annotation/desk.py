"""An annotator's desk: one task at a time, which can be answered, skipped or flagged once, and undone.

Request ids are derived from the lease, so a double click or a resubmitted form is the same call, and the preference
service returns the same response.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import accord
from accord.preference import v1 as preference_v1
from accord_console.annotation import form_parsing
from accord_console.annotation.presentation_log import PresentationLog
from accord_console.annotation.task_page import Slip, TaskPage, TaskPages
from accord_console.auth.invites import Invite

# How long a computed agreement is reused.
AGREEMENT_SECONDS = 60.0


@dataclass(frozen=True)
class Progress:
    """The progress of the annotator's tasks, and Krippendorff's alpha between the people who judged; None if
    unknown."""

    open: int
    done: int | None
    agreement: float | None

    @property
    def share(self) -> float | None:
        """The share of completed tasks."""
        return self.done / (self.open + self.done) if self.done is not None and self.open + self.done else None


class Desk:
    """Leases tasks for annotators and stores their judgements. `services` returns a client of the preference
    service."""

    def __init__(
        self,
        services: Callable[[], Awaitable[accord.Client]],
        task_pages: TaskPages,
        presentation_log: PresentationLog,
        lease_seconds: float,
        call_seconds: float,
    ) -> None:
        self._services = services
        self._agreements: dict[str, tuple[float, float | None]] = {}
        self._task_pages = task_pages
        self._presentation_log = presentation_log
        self._lease_seconds = lease_seconds
        self._timeout = call_seconds

    async def take(self, invite: Invite) -> TaskPage | None:
        """The task that the annotator has leased, or the next one; None if there is none."""
        lease = await (await self._services()).preferences.lease_task(
            annotator(invite), ttl_seconds=self._lease_seconds, queue=invite.queue, resume=True, timeout=self._timeout
        )
        return None if lease is None else self._task_pages.page_of(lease)

    async def progress(self, invite: Invite) -> Progress:
        """The progress of the invite's queue, or of all tasks."""
        client = await self._services()
        agreement = await self._agreement(client, invite.queue)
        if invite.queue:
            found = await client.preferences.queue(invite.queue, timeout=self._timeout)
            return Progress(found.open_tasks, found.done_tasks, agreement)
        return Progress((await client.preferences.stats(timeout=self._timeout)).open_tasks, None, agreement)

    async def _agreement(self, client: accord.Client, queue: str) -> float | None:
        """Reused for a minute, since computing it reads all feedback."""
        known = self._agreements.get(queue)
        if known is None or time.monotonic() - known[0] > AGREEMENT_SECONDS:
            kinds = await client.annotators.quality(
                queues=[queue] if queue else [],
                kinds=[preference_v1.ANNOTATOR_KIND_HUMAN],
                timeout=self._timeout,
            )
            alpha = next((kind.alpha for kind in kinds if kind.HasField("alpha")), None)
            known = self._agreements[queue] = (time.monotonic(), alpha)
        return known[1]

    async def answer(self, invite: Invite, form: Mapping[str, str]) -> str:
        """Stores the judgement of a form and returns the feedback's id. InvalidArgument if it is incomplete."""
        slip = self._task_pages.read(form.get("slip", ""), invite.invite_id)
        stored = await (await self._services()).preferences.submit(
            feedback_of(invite, slip, form),
            lease_id=slip.lease_id,
            request_id=f"console-answer-{slip.lease_id}",
            timeout=self._timeout,
        )
        self._presentation_log.record(stored.feedback_id, slip)
        return stored.feedback_id

    async def skip(self, invite: Invite, form: Mapping[str, str]) -> None:
        """Releases the task unanswered."""
        slip = self._task_pages.read(form.get("slip", ""), invite.invite_id)
        await self._release(slip, "skip")

    async def flag(self, invite: Invite, form: Mapping[str, str]) -> None:
        """Releases the task and reports what is wrong with it."""
        slip = self._task_pages.read(form.get("slip", ""), invite.invite_id)
        await (await self._services()).preferences.flag_task(
            slip.lease_id,
            form_parsing.flag_reason(form.get("reason", "")),
            comment=form.get("comment", "").strip(),
            request_id=f"console-flag-{slip.lease_id}",
            timeout=self._timeout,
        )

    async def undo(self, invite: Invite, feedback_id: str, form: Mapping[str, str]) -> None:
        """Retracts the last answer and leases its task again; the current task is released."""
        if form.get("slip"):
            await self._release(self._task_pages.read(form["slip"], invite.invite_id), "aside")
        await (await self._services()).preferences.retract(
            feedback_id,
            annotator(invite),
            lease_again=True,
            ttl_seconds=self._lease_seconds,
            request_id=f"console-undo-{feedback_id}",
            timeout=self._timeout,
        )

    async def _release(self, slip: Slip, why: str) -> None:
        await (await self._services()).preferences.release_task(
            slip.lease_id, request_id=f"console-{why}-{slip.lease_id}", timeout=self._timeout
        )


def feedback_of(invite: Invite, slip: Slip, form: Mapping[str, str]) -> preference_v1.Feedback:
    """The judgement of a form, always by the invite's annotator."""
    feedback = preference_v1.Feedback(
        prompt_id=slip.prompt_id,
        annotator=annotator(invite),
        task_id=slip.task_id,
        comment=form.get("comment", "").strip(),
        criteria=form_parsing.criteria(slip, form),
    )
    if slip.kind == "comparison":
        feedback.comparison.CopyFrom(form_parsing.comparison(slip.shown, form.get("choice", "")))
    elif slip.kind == "ranking":
        feedback.ranking.CopyFrom(form_parsing.ranking(slip.shown, form.get("ranks", "")))
    else:
        feedback.rating.CopyFrom(form_parsing.rating(slip.shown[0], form.get("value", "")))
    return feedback


def annotator(invite: Invite) -> preference_v1.Annotator:
    """The annotator of an invite: a person."""
    return preference_v1.Annotator(annotator_id=invite.annotator_id, kind=preference_v1.ANNOTATOR_KIND_HUMAN)
