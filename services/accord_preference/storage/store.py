"""The seam to storage: the interface of a store; rows.py has its carriers. The parts of the service do not depend on a
database, and stores contain no business rules.

A store is chosen by the scheme of its URL (`storage.opening`), and tests/conformance/test_store_*.py verify that it
meets this interface. Prompts, completions, feedback and snapshots are written once and never change, except that
feedback records its correction or retraction.
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
    """Reads of one transaction."""

    async def prompts(self, ids: Sequence[str]) -> dict[str, PromptRow]:
        """The rows of those `ids` that exist."""
        ...

    async def completions(self, ids: Sequence[str]) -> dict[str, CompletionRow]:
        """The rows of those `ids` that exist."""
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
        """The feedback, if it exists."""
        ...

    async def answer(self, task_id: str, annotator_id: str) -> FeedbackRow | None:
        """The active answer of this annotator to this task, if any."""
        ...

    async def retracted(self, task_id: str, annotator_id: str) -> FeedbackRow | None:
        """The feedback on this task that this annotator retracted last, if any."""
        ...

    async def list_feedback(self, history: History, before: int, limit: int) -> list[tuple[int, FeedbackRow]]:
        """(number, feedback), at most `limit` with numbers below `before` (0: any), newest first."""
        ...

    async def active_lease(self, annotator_id: str, queue: str, now_us: int) -> LeaseRow | None:
        """The active lease of this annotator on an open task (of `queue`); the newest if there are several."""
        ...

    async def queue(self, queue: str, now_us: int, since_us: int) -> QueueCounts:
        """The progress of the queue (ending in `/`: of all below) at `now_us`; recent feedback is after `since_us`."""
        ...

    async def annotator(self, annotator_id: str, kind: int) -> AnnotatorRow | None:
        """The annotator, if registered."""
        ...

    async def list_annotators(self, after: tuple[str, int], limit: int, kind: int, state: int) -> list[AnnotatorRow]:
        """At most `limit` annotators after `after`, by id and kind; 0 does not filter."""
        ...

    async def counts(self, annotators: Sequence[str]) -> dict[tuple[str, int], int]:
        """The numbers of active judgements by annotator id and kind, for these ids."""
        ...

    async def list_flags(self, queue: str, before: int, limit: int) -> list[tuple[FlagRow, TaskRow]]:
        """At most `limit` flags with numbers below `before` (0: any), newest first, each with its task."""
        ...

    def judged(self, filter_: Filter) -> AsyncIterator[JudgedRow]:
        """Every active judgement that matches, in order of arrival, including gold and late judgements and those of
        inactive annotators. If the filter's queue ends in `/`, it includes all below it."""
        ...

    async def outcomes(self, queues: Sequence[str]) -> dict[tuple[str, int], dict[int, int]]:
        """The number of leases on tasks (of these queues) by annotator id and kind and by outcome."""
        ...

    async def corrected(self, queues: Sequence[str]) -> dict[tuple[str, int], int]:
        """The number of corrected and retracted feedback (of these queues) by annotator id and kind."""
        ...

    async def lengths(self, completions: Sequence[str]) -> dict[str, int]:
        """The lengths of completions in characters."""
        ...

    async def deleted(self, prompt_ids: Sequence[str]) -> set[str]:
        """The deleted ones among these prompts."""
        ...

    async def snapshot_uses(
        self, *, annotator: tuple[str, int] | None = None, prompt_id: str = "", completion_id: str = ""
    ) -> list[tuple[SnapshotRow, int]]:
        """Snapshots with records from an annotator, or on a prompt or completion, newest first; and their number."""
        ...

    async def snapshot_origins(self, snapshot: SnapshotRow) -> Origins:
        """The origins of the records of a snapshot."""
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
        """At most `limit` records of a snapshot after position `after` (empty: from the start), in canonical order."""
        ...

    async def record_numbers(self, kind: int, filter_: Filter) -> Sequence[int]:
        """The numbers of all matching records in canonical order, eight bytes each."""
        ...

    async def records(self, kind: int, numbers: Sequence[int]) -> list[RecordRow]:
        """The records with these numbers, in this order. A record is never removed, and changes only by a later
        correction or retraction of its feedback."""
        ...

    def record_digests(self, kind: int, filter_: Filter) -> AsyncIterator[tuple[str, int]]:
        """(record digest, split) of every matching record in canonical order, that is, by record digest."""
        ...

    async def request(self, request_id: str) -> KeptResponse | None:
        """The response that was kept for this request_id, if any."""
        ...


class Writer(Reader, Protocol):
    """Writes of one transaction. Adding existing rows does nothing; counts are of new rows.

    A task that `task` or `next_task` returned is locked. Other writers that need it wait for this transaction, so reads
    of its leases and answers stay valid until the end.
    """

    async def add_prompts(self, new: Sequence[PromptRow]) -> int:
        """Adds prompts; if two have the same id, the first is kept."""
        ...

    async def add_completions(self, new: Sequence[CompletionRow]) -> int:
        """Adds completions; if two have the same id, the first is kept."""
        ...

    async def add_feedback(self, new: Sequence[FeedbackRow]) -> int:
        """Adds feedback; if two have the same id, the first is kept."""
        ...

    async def add_tasks(self, new: Sequence[TaskRow]) -> None:
        """Adds tasks, oldest first."""
        ...

    async def next_task(self, annotator_id: str, queue: str, now_us: int, *, gold: bool = False) -> TaskRow | None:
        """The open task that is first by turn and age for this annotator (in `queue`; "": in any queue; ending in `/`:
        in all below it). It needs more answers than it has answers and active leases, and this annotator has not
        answered, leased or flagged it. Tasks that they leased before and released come after all others; tasks that
        other writers have locked are skipped for newer ones. `gold`: a gold task, which any number of annotators may
        answer."""
        ...

    async def add_lease(self, row: LeaseRow) -> None:
        """Records who holds a task."""
        ...

    async def end_lease(self, lease_id: str, outcome: int) -> None:
        """Ends a lease before it expires. A lease that has ended keeps its outcome, unless this one is ANSWERED."""
        ...

    async def renew_lease(self, lease_id: str, expire_us: int) -> None:
        """Changes the expiry time of a lease."""
        ...

    async def count_answer(self, task_id: str) -> None:
        """Counts an answer. The task is done when it has the requested number; a gold task is never done."""
        ...

    async def uncount_answer(self, task_id: str) -> None:
        """Subtracts an answer. If a done task then has too few, it is open again."""
        ...

    async def supersede(self, feedback_id: str, by: str, *, retracted: bool = False) -> bool:
        """Records that feedback is no longer active: `by` corrects it, or it is RETRACTED. If it was not active,
        returns False and changes nothing; with `retracted`, retracted feedback can be replaced too."""
        ...

    async def cancel_tasks(self, queue: str) -> int:
        """Cancels the open and flagged tasks of a queue and ends their leases; returns their number without gold
        tasks."""
        ...

    async def set_task(self, task_id: str, state: int) -> None:
        """Sets the state of a task; if it is no longer open, its leases end."""
        ...

    async def add_flag(self, row: FlagRow) -> int:
        """Adds a flag unless the annotator has flagged the task before; returns the number of flags on the task."""
        ...

    async def put_annotator(self, row: AnnotatorRow) -> None:
        """Adds or replaces an annotator."""
        ...

    async def add_annotators(self, annotators: Sequence[tuple[str, int]], now_us: int) -> None:
        """Adds annotators as active; existing annotators are unchanged."""
        ...

    async def delete_prompts(self, prompt_ids: Sequence[str], now_us: int) -> tuple[int, int]:
        """Marks prompts as deleted and cancels their tasks; returns (number of newly deleted prompts, number of
        tasks)."""
        ...

    async def add_snapshot(self, row: SnapshotRow, filter_: Filter) -> None:
        """Freezes the records that match now, in canonical order."""
        ...

    async def remember(self, row: KeptResponse, now_us: int) -> None:
        """Keeps a response for repeats of its request_id."""
        ...

    async def pin_split(self, heldout_fraction: float, salt: str) -> None:
        """Records the split in a new store. FailedPrecondition, SPLIT_CHANGED, if the store has a different split."""
        ...


class Store(Protocol):
    """Storage of the preference service."""

    def reading(self) -> AbstractAsyncContextManager[Reader]:
        """A read-only transaction that sees one state."""
        ...

    def writing(self, *, steady: bool = False) -> AbstractAsyncContextManager[Writer]:
        """A transaction that is committed as a whole, or rolled back when the body raises.

        Several may run at once, and each sees what others commit in the meantime; with `steady` it sees one state.
        Aborted, DATABASE_CONFLICT: the transaction conflicted with others and was rolled back; run the body again
        (`retrying`).
        """
        ...

    async def close(self) -> None:
        """Closes the database."""
        ...
