"""Reading from an SQL database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Table,
    and_,
    distinct,
    func,
    select,
)

from accord.preference.v1 import TASK_STATE_CANCELLED, TASK_STATE_DONE, TASK_STATE_FLAGGED, TASK_STATE_OPEN
from accord_preference.storage.sql import mapping, tables
from accord_preference.storage.sql.conditions import in_queue, is_active, matching
from accord_preference.storage.sql.records import SqlRecords
from accord_preference.storage.store import (
    PROMPTS,
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


class SqlReader(SqlRecords):
    """`Reader` over one connection in a transaction."""

    async def list_prompts(self, after: str, limit: int, split: int, source: str) -> list[PromptRow]:
        table = tables.prompts
        query = select(table).where(table.c.prompt_id > after, *matching(PROMPTS, Filter()))
        query = query.order_by(table.c.prompt_id).limit(limit)
        if split:
            query = query.where(table.c.split == split)
        if source:
            query = query.where(table.c.source == source)
        return [mapping.read(PromptRow, row) for row in await self._connection.execute(query)]

    async def task(self, task_id: str) -> TaskRow | None:
        return await self._one(tables.tasks, tables.tasks.c.task_id == task_id, TaskRow)

    async def lease(self, lease_id: str) -> LeaseRow | None:
        return await self._one(tables.leases, tables.leases.c.lease_id == lease_id, LeaseRow)

    async def feedback(self, feedback_id: str) -> FeedbackRow | None:
        return await self._one(tables.feedback, tables.feedback.c.feedback_id == feedback_id, FeedbackRow)

    async def answer(self, task_id: str, annotator_id: str) -> FeedbackRow | None:
        table = tables.feedback
        mine = and_(table.c.task_id == task_id, table.c.annotator_id == annotator_id)
        return await self._one(table, and_(mine, table.c.superseded_by.is_(None)), FeedbackRow)

    async def queue(self, queue: str, now_us: int, since_us: int) -> QueueCounts:
        task, lease, feedback = tables.tasks, tables.leases, tables.feedback
        here, ordinary = in_queue(task.c.queue, queue), task.c.gold.is_(None)
        sums = (task.c.state, func.count(), func.coalesce(func.sum(task.c.redundancy), 0))
        query = select(*sums).where(here, ordinary).group_by(task.c.state)
        states = {row[0]: (int(row[1]), int(row[2])) for row in await self._connection.execute(query)}
        leased = (
            select(func.count(distinct(task.c.task_id)))
            .join(lease, lease.c.task_id == task.c.task_id)
            .where(here, ordinary, is_active(lease, now_us))
        )
        given = (
            select(func.count())
            .select_from(feedback)
            .where(in_queue(feedback.c.queue, queue), feedback.c.superseded_by.is_(None), feedback.c.gold.is_(False))
        )
        nothing = (0, 0)
        return QueueCounts(
            open_tasks=states.get(TASK_STATE_OPEN, nothing)[0],
            done_tasks=states.get(TASK_STATE_DONE, nothing)[0],
            cancelled_tasks=states.get(TASK_STATE_CANCELLED, nothing)[0],
            leased_tasks=await self._count(leased),
            feedback=await self._count(given),
            flagged_tasks=states.get(TASK_STATE_FLAGGED, nothing)[0],
            gold_tasks=await self._count(
                select(func.count()).select_from(task).where(here, ~ordinary, task.c.state != TASK_STATE_CANCELLED)
            ),
            wanted_feedback=states.get(TASK_STATE_OPEN, nothing)[1] + states.get(TASK_STATE_DONE, nothing)[1],
            recent_feedback=await self._count(given.where(feedback.c.created_us > since_us)),
        )

    async def stats(self) -> Stats:
        task, feedback = tables.tasks, tables.feedback
        in_force = feedback.c.superseded_by.is_(None)
        by_kind = select(feedback.c.kind, func.count()).where(in_force).group_by(feedback.c.kind)
        columns = (feedback.c.label, feedback.c.split, feedback.c.annotator_kind)
        by_label = select(*columns, func.count()).where(in_force).group_by(*columns).order_by(*columns)
        waiting = select(func.count()).select_from(task).where(task.c.state == TASK_STATE_OPEN, task.c.gold.is_(None))
        return Stats(
            prompts=await self._count(select(func.count()).select_from(tables.prompts)),
            completions=await self._count(select(func.count()).select_from(tables.completions)),
            open_tasks=await self._count(waiting),
            snapshots=await self._count(select(func.count()).select_from(tables.snapshots)),
            judgements={row[0]: row[1] for row in await self._connection.execute(by_kind)},
            feedback={(row[0], row[1], row[2]): row[3] for row in await self._connection.execute(by_label)},
        )

    async def snapshot(self, digest: str) -> SnapshotRow | None:
        return await self._one(tables.snapshots, tables.snapshots.c.digest == digest, SnapshotRow)

    async def list_snapshots(self, before: int, limit: int) -> list[SnapshotRow]:
        table = tables.snapshots
        query = select(table).order_by(table.c.number.desc()).limit(limit)
        if before:
            query = query.where(table.c.number < before)
        return [mapping.read(SnapshotRow, row) for row in await self._connection.execute(query)]

    async def request(self, request_id: str) -> KeptResponse | None:
        table = tables.requests
        return await self._one(table, table.c.request_id == request_id, KeptResponse)

    async def _one(self, table: Table, condition: ColumnElement[bool], kind: type[mapping.R]) -> mapping.R | None:
        row = (await self._connection.execute(select(table).where(condition))).one_or_none()
        return None if row is None else mapping.read(kind, row)

    async def _count(self, query: Any) -> int:
        return int((await self._connection.execute(query)).scalar_one())
