"""Reading from an SQL database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Row,
    Table,
    and_,
    distinct,
    func,
    select,
)

from accord_preference.storage.sql import mapping, tables
from accord_preference.storage.sql.history import in_queue
from accord_preference.storage.sql.records import SqlRecords, conditions
from accord_preference.storage.store import (
    PROMPTS,
    CompletionRow,
    FeedbackRow,
    Filter,
    LeaseRow,
    PromptRow,
    QueueCounts,
    SnapshotRow,
    Stats,
    TaskRow,
)
from accord_runtime.serving.idempotency import KeptResponse

T = TypeVar("T")
K = TypeVar("K", PromptRow, CompletionRow)
_OPEN, _DONE, _CANCELLED, _FLAGGED = 1, 2, 3, 4
_PROMPT = len(PromptRow._fields)


class SqlReader(SqlRecords):
    """`Reader` over one connection in a transaction."""

    async def list_prompts(self, after: str, limit: int, split: int, source: str) -> list[PromptRow]:
        """See `Reader`."""
        table = tables.prompts
        query = select(table).where(table.c.prompt_id > after, *conditions(PROMPTS, Filter()))
        query = query.order_by(table.c.prompt_id).limit(limit)
        if split:
            query = query.where(table.c.split == split)
        if source:
            query = query.where(table.c.source == source)
        return [mapping.prompt(row) for row in await self._connection.execute(query)]

    async def task(self, task_id: str) -> TaskRow | None:
        """See `Reader`."""
        return await self._one(tables.tasks, tables.tasks.c.task_id == task_id, mapping.task)

    async def lease(self, lease_id: str) -> LeaseRow | None:
        """See `Reader`."""
        return await self._one(tables.leases, tables.leases.c.lease_id == lease_id, mapping.lease)

    async def feedback(self, feedback_id: str) -> FeedbackRow | None:
        """See `Reader`."""
        return await self._one(tables.feedback, tables.feedback.c.feedback_id == feedback_id, mapping.feedback)

    async def answer(self, task_id: str, annotator_id: str) -> FeedbackRow | None:
        """See `Reader`."""
        table = tables.feedback
        mine = and_(table.c.task_id == task_id, table.c.annotator_id == annotator_id)
        return await self._one(table, and_(mine, table.c.superseded_by.is_(None)), mapping.feedback)

    async def queue(self, queue: str, now_us: int, since_us: int) -> QueueCounts:
        """See `Reader`."""
        task, lease, feedback = tables.tasks, tables.leases, tables.feedback
        here, ordinary = in_queue(task.c.queue, queue), task.c.gold.is_(None)
        sums = (task.c.state, func.count(), func.coalesce(func.sum(task.c.redundancy), 0))
        query = select(*sums).where(here, ordinary).group_by(task.c.state)
        states = {row[0]: (int(row[1]), int(row[2])) for row in await self._connection.execute(query)}
        leased = (
            select(func.count(distinct(task.c.task_id)))
            .join(lease, lease.c.task_id == task.c.task_id)
            .where(here, ordinary, lease.c.ended.is_(False), lease.c.expire_us > now_us)
        )
        given = (
            select(func.count())
            .select_from(feedback)
            .where(in_queue(feedback.c.queue, queue), feedback.c.superseded_by.is_(None), feedback.c.gold.is_(False))
        )
        nothing = (0, 0)
        return QueueCounts(
            open_tasks=states.get(_OPEN, nothing)[0],
            done_tasks=states.get(_DONE, nothing)[0],
            cancelled_tasks=states.get(_CANCELLED, nothing)[0],
            leased_tasks=await self._count(leased),
            feedback=await self._count(given),
            flagged_tasks=states.get(_FLAGGED, nothing)[0],
            gold_tasks=await self._count(
                select(func.count()).select_from(task).where(here, ~ordinary, task.c.state != _CANCELLED)
            ),
            wanted_feedback=states.get(_OPEN, nothing)[1] + states.get(_DONE, nothing)[1],
            recent_feedback=await self._count(given.where(feedback.c.created_us > since_us)),
        )

    async def stats(self) -> Stats:
        """See `Reader`."""
        task, feedback = tables.tasks, tables.feedback
        in_force = feedback.c.superseded_by.is_(None)
        by_kind = select(feedback.c.kind, func.count()).where(in_force).group_by(feedback.c.kind)
        columns = (feedback.c.label, feedback.c.split, feedback.c.annotator_kind)
        by_label = select(*columns, func.count()).where(in_force).group_by(*columns).order_by(*columns)
        waiting = select(func.count()).select_from(task).where(task.c.state == _OPEN, task.c.gold.is_(None))
        return Stats(
            prompts=await self._count(select(func.count()).select_from(tables.prompts)),
            completions=await self._count(select(func.count()).select_from(tables.completions)),
            open_tasks=await self._count(waiting),
            snapshots=await self._count(select(func.count()).select_from(tables.snapshots)),
            judgements={row[0]: row[1] for row in await self._connection.execute(by_kind)},
            feedback={(row[0], row[1], row[2]): row[3] for row in await self._connection.execute(by_label)},
        )

    async def snapshot(self, digest: str) -> SnapshotRow | None:
        """See `Reader`."""
        return await self._one(tables.snapshots, tables.snapshots.c.digest == digest, mapping.snapshot)

    async def list_snapshots(self, before: int, limit: int) -> list[SnapshotRow]:
        """See `Reader`."""
        table = tables.snapshots
        query = select(table).order_by(table.c.number.desc()).limit(limit)
        if before:
            query = query.where(table.c.number < before)
        return [mapping.snapshot(row) for row in await self._connection.execute(query)]

    async def request(self, request_id: str) -> KeptResponse | None:
        """See `Reader`."""
        table = tables.requests
        return await self._one(
            table, table.c.request_id == request_id, lambda row: KeptResponse(row.request_id, row.content, row.response)
        )

    async def _one(self, table: Table, condition: ColumnElement[bool], read: Callable[[Row[Any]], T]) -> T | None:
        row = (await self._connection.execute(select(table).where(condition))).one_or_none()
        return None if row is None else read(row)

    async def _count(self, query: Any) -> int:
        return int((await self._connection.execute(query)).scalar_one())
