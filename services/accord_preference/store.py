"""The seam to storage: what a store must do, and what it carries. Handlers know no database, stores know no rules.

A store is chosen by the scheme of its URL (`accord_preference.stores.open_store`) and held to this file by
tests/conformance/test_store.py. Prompts, completions, feedback and snapshots are written once and never change.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

PROMPTS = 1
PREFERENCES = 2


@dataclass(frozen=True)
class PromptRow:
    """A prompt. `conversation`: canonical JSON of [[role, content], ...]; `split`: preference.v1.Split."""

    prompt_id: str
    conversation: str
    source: str
    split: int
    record_digest: str


@dataclass(frozen=True)
class CompletionRow:
    """An answer. `origin`: canonical JSON of the origin, or None."""

    completion_id: str
    prompt_id: str
    text: str
    origin: str | None


@dataclass(frozen=True)
class FeedbackRow:
    """A judgement. `kind`: preference.v1.TaskKind; `judgement`: canonical JSON; `task_id`: None without a task.

    `label` is the source that filters and statistics use: the feedback's own, else its prompt's. `created_us`:
    microseconds since 1970.
    """

    feedback_id: str
    prompt_id: str
    annotator_id: str
    annotator_kind: int
    kind: int
    judgement: str
    completion_ids: tuple[str, ...]
    task_id: str | None
    queue: str
    source: str
    label: str
    created_us: int
    late: bool
    split: int
    record_digest: str


@dataclass(frozen=True)
class TaskRow:
    """A piece of work. `kind`, `state`: preference.v1.TaskKind and TaskState."""

    task_id: str
    kind: int
    prompt_id: str
    completion_ids: tuple[str, ...]
    redundancy: int
    queue: str
    state: int
    answers: int = 0


@dataclass(frozen=True)
class LeaseRow:
    """A task in an annotator's hands until `expire_us` (microseconds since 1970), or until it `ended` before."""

    lease_id: str
    task_id: str
    annotator_id: str
    expire_us: int
    ended: bool = False


@dataclass(frozen=True)
class Filter:
    """Which records; empty fields do not filter. Annotator kinds and queues apply to feedback only."""

    sources: tuple[str, ...] = ()
    annotator_kinds: tuple[int, ...] = ()
    queues: tuple[str, ...] = ()
    split: int = 0


@dataclass(frozen=True)
class SnapshotRow:
    """A snapshot. `filter`: the serialised preference.v1.SnapshotFilter; `number` grows with every snapshot made."""

    digest: str
    kind: int
    train_records: int
    heldout_records: int
    created_us: int
    filter: bytes
    number: int = 0


@dataclass(frozen=True)
class RecordRow:
    """One record of an export; `position` is where the next page goes on."""

    position: tuple[int | str, ...]
    prompt: PromptRow
    completions: tuple[CompletionRow, ...] = ()
    feedback: FeedbackRow | None = None


@dataclass(frozen=True)
class RequestRow:
    """What was answered to a request_id: the digest of the request, and the serialised response."""

    request_id: str
    content: str
    response: bytes


@dataclass(frozen=True)
class QueueCounts:
    """How far a queue is."""

    open_tasks: int = 0
    done_tasks: int = 0
    cancelled_tasks: int = 0
    leased_tasks: int = 0
    feedback: int = 0


@dataclass(frozen=True)
class Stats:
    """How much there is. `feedback`: (label, split, annotator kind) -> count; `judgements`: TaskKind -> count."""

    prompts: int = 0
    completions: int = 0
    open_tasks: int = 0
    snapshots: int = 0
    judgements: Mapping[int, int] = field(default_factory=dict)
    feedback: Mapping[tuple[str, int, int], int] = field(default_factory=dict)


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
        """What this annotator answered to this task, if anything."""
        ...

    async def queue(self, queue: str, now_us: int) -> QueueCounts:
        """How far the queue is at `now_us`."""
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

    async def newest(self, kind: int) -> int:
        """The number of the newest record of this kind; those of later transactions have higher numbers."""
        ...

    async def record_page(
        self, kind: int, filter_: Filter, newest: int, after: tuple[int | str, ...], limit: int
    ) -> list[RecordRow]:
        """At most `limit` records that match, no newer than number `newest`, in canonical order behind `after`."""
        ...

    def record_digests(self, kind: int, filter_: Filter) -> AsyncIterator[tuple[str, int]]:
        """(record digest, split) of every record that matches, in canonical order: by record digest."""
        ...

    async def request(self, request_id: str) -> RequestRow | None:
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

    async def next_task(self, annotator_id: str, queue: str, now_us: int) -> TaskRow | None:
        """The oldest open task (of `queue`; "": of any) for this annotator: wanted by more than have answered or hold
        it, not answered and not held by them. Tasks that they held before and let go come after all others, and tasks
        that other writers hold at this moment are passed over for newer ones."""
        ...

    async def add_lease(self, row: LeaseRow) -> None:
        """Notes who holds a task."""
        ...

    async def end_lease(self, lease_id: str) -> None:
        """Frees the task before the lease's time is over."""
        ...

    async def count_answer(self, task_id: str) -> None:
        """One more has answered; the task is done when as many have as were asked for."""
        ...

    async def cancel_tasks(self, queue: str) -> int:
        """Withdraws the open tasks of a queue and ends their leases; how many."""
        ...

    async def add_snapshot(self, row: SnapshotRow, filter_: Filter) -> None:
        """Freezes the records that match now, in canonical order."""
        ...

    async def remember(self, row: RequestRow, now_us: int) -> None:
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
