"""The seam to storage: what a store must do; carriers.py has what it carries. Handlers know no database, stores no
rules.

A store is chosen by the scheme of its URL (`accord_preference.stores.open_store`) and held to this file by
tests/conformance/test_store_*.py. Prompts, completions, feedback and snapshots are written once and never change, but
for the note on feedback that something else has taken its place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from accord_preference.storage.rows import (
    ANSWERED,
    CANCELLED,
    FLAGGED,
    HELD,
    PREFERENCES,
    PROMPTS,
    RETRACTED,
    SKIPPED,
    AnnotatorRow,
    CompletionRow,
    FeedbackRow,
    Filter,
    FlagRow,
    History,
    JudgedRow,
    LeaseRow,
    Origins,
    PromptRow,
    QueueCounts,
    RecordRow,
    SnapshotRow,
    Stats,
    TaskRow,
)
from accord_runtime.serving.idempotency import KeptResponse

__all__ = [
    "ANSWERED",
    "AnnotatorRow",
    "CANCELLED",
    "CompletionRow",
    "FLAGGED",
    "FeedbackRow",
    "Filter",
    "FlagRow",
    "HELD",
    "History",
    "JudgedRow",
    "LeaseRow",
    "Origins",
    "PREFERENCES",
    "PROMPTS",
    "PromptRow",
    "QueueCounts",
    "RETRACTED",
    "Reader",
    "RecordRow",
    "SKIPPED",
    "SnapshotRow",
    "Stats",
    "Store",
    "TaskRow",
    "Writer",
]


class Reader(Protocol):
    """What can be read in one transaction."""

    async def prompts(self, ids: Sequence[str]) -> dict[str, PromptRow]:
        """Those of `ids` that exist."""
        ...

    async def completions(self, ids: Sequence[str]) -> dict[str, CompletionRow]:
        """Those of `ids` that exist."""
        ...

    async def list_prompts(self, after: str, limit: int, split: int, source: str) -> list[PromptRow]:
        """At most `limit` prompts with ids above `after`, by id. `split` 0 and `source` "" do not filter."""
        ...

    async def task(self, task_id: str) -> TaskRow | None:
        """The task, if it exists."""
        ...

    async def lease(self, lease_id: str) -> LeaseRow | None:
        """The lease, if it exists."""
        ...

    async def feedback(self, feedback_id: str) -> FeedbackRow | None:
        """The judgement, if it exists."""
        ...

    async def answer(self, task_id: str, annotator_id: str) -> FeedbackRow | None:
        """What this annotator answered to this task and did not take back, if anything."""
        ...

    async def retracted(self, task_id: str, annotator_id: str) -> FeedbackRow | None:
        """What this annotator took back of this task last, if anything."""
        ...

    async def list_feedback(self, history: History, before: int, limit: int) -> list[tuple[int, FeedbackRow]]:
        """(number, feedback), at most `limit` with numbers below `before` (0: any), newest first."""
        ...

    async def held(self, annotator_id: str, queue: str, now_us: int) -> LeaseRow | None:
        """The lease that this annotator holds on an open task (of `queue`), the newest of several."""
        ...

    async def queue(self, queue: str, now_us: int, since_us: int) -> QueueCounts:
        """How far the queue (ending in `/`: all below it) is at `now_us`; recent is what came after `since_us`."""
        ...

    async def annotator(self, annotator_id: str, kind: int) -> AnnotatorRow | None:
        """The annotator, if they are known."""
        ...

    async def list_annotators(self, after: tuple[str, int], limit: int, kind: int, state: int) -> list[AnnotatorRow]:
        """At most `limit` annotators behind `after`, by id and kind; 0 does not filter."""
        ...

    async def counts(self, annotators: Sequence[str]) -> dict[tuple[str, int], int]:
        """Judgements in force by annotator id and kind, of these ids."""
        ...

    async def list_flags(self, queue: str, before: int, limit: int) -> list[tuple[FlagRow, TaskRow]]:
        """At most `limit` flags with numbers below `before` (0: any), newest first, each with its task."""
        ...

    def judged(self, filter_: Filter) -> AsyncIterator[JudgedRow]:
        """Every judgement in force that matches, in the order in which they came, gold and late ones and those of
        inactive annotators too. A queue of the filter that ends in `/` stands for all below it."""
        ...

    async def outcomes(self, queues: Sequence[str]) -> dict[tuple[str, int], dict[int, int]]:
        """By annotator id and kind: how many of their leases on tasks (of these queues) ended how."""
        ...

    async def corrected(self, queues: Sequence[str]) -> dict[tuple[str, int], int]:
        """By annotator id and kind: how much of their feedback (of these queues) was corrected or taken back."""
        ...

    async def lengths(self, completions: Sequence[str]) -> dict[str, int]:
        """How long answers are, characters."""
        ...

    async def deleted(self, prompt_ids: Sequence[str]) -> set[str]:
        """Those of these prompts that were deleted."""
        ...

    async def snapshot_uses(
        self, *, annotator: tuple[str, int] | None = None, prompt_id: str = "", completion_id: str = ""
    ) -> list[tuple[SnapshotRow, int]]:
        """Snapshots that hold records of an annotator, on a prompt or on a completion, and how many; newest first."""
        ...

    async def snapshot_origins(self, snapshot: SnapshotRow) -> Origins:
        """What the records of a snapshot come from."""
        ...

    async def stats(self) -> Stats:
        """Counts over everything."""
        ...

    async def snapshot(self, digest: str) -> SnapshotRow | None:
        """The snapshot, if it exists."""
        ...

    async def list_snapshots(self, before: int, limit: int) -> list[SnapshotRow]:
        """At most `limit` snapshots with numbers below `before` (0: any), newest first."""
        ...

    async def snapshot_page(
        self, snapshot: SnapshotRow, after: tuple[int | str, ...], limit: int, split: int
    ) -> list[RecordRow]:
        """At most `limit` records of a snapshot behind position `after` (empty: from the start), in canonical order."""
        ...

    async def record_numbers(self, kind: int, filter_: Filter) -> Sequence[int]:
        """The numbers of all records that match, in canonical order; eight bytes each."""
        ...

    async def records(self, kind: int, numbers: Sequence[int]) -> list[RecordRow]:
        """The records of these numbers, in this order. A record never goes, and never changes but for what has become
        of feedback since."""
        ...

    def record_digests(self, kind: int, filter_: Filter) -> AsyncIterator[tuple[str, int]]:
        """(record digest, split) of every record that matches, in canonical order: by record digest."""
        ...

    async def request(self, request_id: str) -> KeptResponse | None:
        """What was answered to this request_id, if anything."""
        ...


class Writer(Reader, Protocol):
    """What can be written in one transaction. Adding what exists does nothing; the counts are of what is new.

    A task that `task` or `next_task` returned is held: other writers that want the same one wait for this transaction,
    so what is found out about its leases and answers stays true until the end.
    """

    async def add_prompts(self, new: Sequence[PromptRow]) -> int:
        """Adds prompts; of two with one id the first is kept."""
        ...

    async def add_completions(self, new: Sequence[CompletionRow]) -> int:
        """Adds completions; of two with one id the first is kept."""
        ...

    async def add_feedback(self, new: Sequence[FeedbackRow]) -> int:
        """Adds judgements; of two with one id the first is kept."""
        ...

    async def add_tasks(self, new: Sequence[TaskRow]) -> None:
        """Opens new tasks, oldest first."""
        ...

    async def next_task(self, annotator_id: str, queue: str, now_us: int, *, gold: bool = False) -> TaskRow | None:
        """The open task that is first by turn and age (of `queue`; "": of any; ending in `/`: of all below it) for this
        annotator: wanted by more than have answered or hold it, not answered, not held and not flagged by them. Tasks
        that they held before and let go come after all others, and tasks that other writers hold at this moment are
        passed over for newer ones. `gold`: a gold task, which any number may answer."""
        ...

    async def add_lease(self, row: LeaseRow) -> None:
        """Notes who holds a task."""
        ...

    async def end_lease(self, lease_id: str, outcome: int) -> None:
        """Frees the task before the lease's time is over. What ended before keeps its outcome, unless answered."""
        ...

    async def renew_lease(self, lease_id: str, expire_us: int) -> None:
        """Moves the end of a lease."""
        ...

    async def count_answer(self, task_id: str) -> None:
        """One more has answered; the task is done when as many have as were asked for, a gold one never."""
        ...

    async def uncount_answer(self, task_id: str) -> None:
        """One answer less; a task that is done is open again when that leaves too few."""
        ...

    async def supersede(self, feedback_id: str, by: str, *, retracted: bool = False) -> bool:
        """Feedback is in force no more: `by` took its place, or it is RETRACTED. False, and nothing is changed, where
        that has happened before; with `retracted`, what was only retracted is replaced too."""
        ...

    async def cancel_tasks(self, queue: str) -> int:
        """Withdraws the open and flagged tasks of a queue and ends their leases; how many, gold ones not counted."""
        ...

    async def set_task(self, task_id: str, state: int) -> None:
        """Gives a task another state; where it is not open any more its leases end."""
        ...

    async def add_flag(self, row: FlagRow) -> int:
        """Notes a flag, the first of an annotator on a task; how many there are on the task now."""
        ...

    async def put_annotator(self, row: AnnotatorRow) -> None:
        """Makes an annotator known, or changes what is known."""
        ...

    async def meet(self, annotators: Sequence[tuple[str, int]], now_us: int) -> None:
        """Makes those known, as active, who are not."""
        ...

    async def delete_prompts(self, prompt_ids: Sequence[str], now_us: int) -> tuple[int, int]:
        """Marks prompts and cancels their tasks: (how many were not deleted before, how many tasks)."""
        ...

    async def add_snapshot(self, row: SnapshotRow, filter_: Filter) -> None:
        """Freezes the records that match now, in canonical order."""
        ...

    async def remember(self, row: KeptResponse, now_us: int) -> None:
        """Keeps an answer for repeats of its request_id."""
        ...

    async def pin_split(self, heldout_fraction: float, salt: str) -> None:
        """Notes the split in a new store; FailedPrecondition, SPLIT_CHANGED, where an old one has another."""
        ...


class Store(Protocol):
    """Where everything is kept."""

    def reading(self) -> AbstractAsyncContextManager[Reader]:
        """A transaction that reads one state."""
        ...

    def writing(self, *, steady: bool = False) -> AbstractAsyncContextManager[Writer]:
        """A transaction that is kept as a whole, or not at all when the body raises.

        Several may run at once, and then each reads what others have committed meanwhile; with `steady` it reads one
        state. Aborted, DATABASE_CONFLICT: others were in the way, nothing was kept; run the body again (`once` does).
        """
        ...

    async def close(self) -> None:
        """Lets go of the database."""
        ...
