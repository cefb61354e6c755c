"""Reading from an SQL database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import ARRAY, ColumnElement, Row, Table, Text, and_, any_, bindparam, distinct, func, or_, select

from accord_preference import tables
from accord_preference.column_types import escape
from accord_preference.store import (
    PROMPTS,
    CompletionRow,
    FeedbackRow,
    Filter,
    LeaseRow,
    PromptRow,
    QueueCounts,
    RecordRow,
    RequestRow,
    SnapshotRow,
    Stats,
    TaskRow,
)
from accord_preference.stores import rows
from accord_preference.stores.sql_history import SqlHistory, counts_now, in_queue

T = TypeVar("T")
_OPEN, _DONE, _CANCELLED, _FLAGGED = 1, 2, 3, 4


class SqlReader(SqlHistory):
    """`Reader` over one connection in a transaction."""

    async def prompts(self, ids: Sequence[str]) -> dict[str, PromptRow]:
        """See `Reader`."""
        return {row.prompt_id: rows.prompt(row) for row in await self._by_ids(tables.prompts, ids)}

    async def completions(self, ids: Sequence[str]) -> dict[str, CompletionRow]:
        """See `Reader`."""
        return {row.completion_id: rows.completion(row) for row in await self._by_ids(tables.completions, ids)}

    async def list_prompts(self, after: str, limit: int, split: int, source: str) -> list[PromptRow]:
        """See `Reader`."""
        table = tables.prompts
        query = select(table).where(table.c.prompt_id > after, *conditions(PROMPTS, Filter()))
        query = query.order_by(table.c.prompt_id).limit(limit)
        if split:
            query = query.where(table.c.split == split)
        if source:
            query = query.where(table.c.source == source)
        return [rows.prompt(row) for row in await self._connection.execute(query)]

    async def task(self, task_id: str) -> TaskRow | None:
        """See `Reader`."""
        return await self._one(tables.tasks, tables.tasks.c.task_id == task_id, rows.task)

    async def lease(self, lease_id: str) -> LeaseRow | None:
        """See `Reader`."""
        return await self._one(tables.leases, tables.leases.c.lease_id == lease_id, rows.lease)

    async def feedback(self, feedback_id: str) -> FeedbackRow | None:
        """See `Reader`."""
        return await self._one(tables.feedback, tables.feedback.c.feedback_id == feedback_id, rows.feedback)

    async def answer(self, task_id: str, annotator_id: str) -> FeedbackRow | None:
        """See `Reader`."""
        table = tables.feedback
        mine = and_(table.c.task_id == task_id, table.c.annotator_id == annotator_id)
        return await self._one(table, and_(mine, table.c.superseded_by.is_(None)), rows.feedback)

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
        return await self._one(tables.snapshots, tables.snapshots.c.digest == digest, rows.snapshot)

    async def list_snapshots(self, before: int, limit: int) -> list[SnapshotRow]:
        """See `Reader`."""
        table = tables.snapshots
        query = select(table).order_by(table.c.number.desc()).limit(limit)
        if before:
            query = query.where(table.c.number < before)
        return [rows.snapshot(row) for row in await self._connection.execute(query)]

    async def snapshot_page(
        self, snapshot: SnapshotRow, after: tuple[int | str, ...], limit: int, split: int
    ) -> list[RecordRow]:
        """See `Reader`."""
        members, record = tables.snapshot_members, _table(snapshot.kind)
        query = (
            select(members.c.position, record)
            .join(record, record.c.number == members.c.member)
            .where(members.c.snapshot == snapshot.number)
            .order_by(members.c.position)
            .limit(limit)
        )
        if after:
            query = query.where(members.c.position > after[0])
        if split:
            query = query.where(members.c.split == split)
        found = (await self._connection.execute(query)).all()
        return await self._records(snapshot.kind, found, [(row.position,) for row in found])

    async def newest(self, kind: int) -> int:
        """See `Reader`."""
        return await self._count(select(func.coalesce(func.max(_table(kind).c.number), 0)))

    async def record_page(
        self, kind: int, filter_: Filter, newest: int, after: tuple[int | str, ...], limit: int
    ) -> list[RecordRow]:
        """See `Reader`."""
        table = _table(kind)
        query = (
            select(table)
            .where(*conditions(kind, filter_), table.c.number <= newest)
            .order_by(table.c.record_digest, table.c.number)
            .limit(limit)
        )
        if after:
            digest, number = after
            behind = and_(table.c.record_digest == digest, table.c.number > number)
            query = query.where(table.c.record_digest >= digest, or_(table.c.record_digest > digest, behind))
        found = (await self._connection.execute(query)).all()
        return await self._records(kind, found, [(row.record_digest, row.number) for row in found])

    async def record_digests(self, kind: int, filter_: Filter) -> AsyncIterator[tuple[str, int]]:
        """See `Reader`."""
        table = _table(kind)
        query = select(table.c.record_digest, table.c.split).where(*conditions(kind, filter_))
        async for row in await self._connection.stream(query.order_by(table.c.record_digest, table.c.number)):
            yield row.record_digest, row.split

    async def request(self, request_id: str) -> RequestRow | None:
        """See `Reader`."""
        table = tables.requests
        return await self._one(
            table, table.c.request_id == request_id, lambda row: RequestRow(row.request_id, row.content, row.response)
        )

    async def _records(
        self, kind: int, found: Sequence[Row[Any]], positions: Sequence[tuple[int | str, ...]]
    ) -> list[RecordRow]:
        if kind == PROMPTS:
            return [RecordRow(position, rows.prompt(row)) for position, row in zip(positions, found, strict=True)]
        judged = [rows.feedback(row) for row in found]
        prompts = await self.prompts([row.prompt_id for row in judged])
        completions = await self.completions([name for row in judged for name in row.completion_ids])
        return [
            RecordRow(position, prompts[row.prompt_id], tuple(completions[name] for name in row.completion_ids), row)
            for position, row in zip(positions, judged, strict=True)
        ]

    async def _by_ids(self, table: Table, ids: Sequence[str], *columns: str) -> list[Row[Any]]:
        key = table.c[rows.key_of(table)]
        query = select(*(table.c[name] for name in columns or table.c.keys())).where(self._among(key))
        return list(await self._connection.execute(query, {"wanted": self._wanted_ids(list(dict.fromkeys(ids)))}))

    def _among(self, key: ColumnElement[str]) -> ColumnElement[bool]:
        """Whether `key` is in the parameter `wanted`: one parameter for any number, and one statement to prepare."""
        if self._connection.dialect.name == "postgresql":
            return key == any_(bindparam("wanted", type_=ARRAY(Text)))
        wanted = func.json_each(bindparam("wanted", type_=Text)).table_valued("value")
        return key.in_(select(wanted.c.value))

    def _wanted_ids(self, ids: list[str]) -> Any:
        if self._connection.dialect.name == "postgresql":
            return [escape(name) for name in ids]
        return json.dumps(ids)

    async def _one(self, table: Table, condition: ColumnElement[bool], read: Callable[[Row[Any]], T]) -> T | None:
        row = (await self._connection.execute(select(table).where(condition))).one_or_none()
        return None if row is None else read(row)

    async def _count(self, query: Any) -> int:
        return int((await self._connection.execute(query)).scalar_one())


def conditions(kind: int, filter_: Filter) -> list[ColumnElement[bool]]:
    """The filter as conditions on the table of the records of this kind."""
    table = _table(kind)
    label = table.c.source if kind == PROMPTS else table.c.label
    found: list[ColumnElement[bool]] = []
    if filter_.sources:
        found.append(label.in_(filter_.sources))
    if filter_.split:
        found.append(table.c.split == filter_.split)
    if kind == PROMPTS:
        return [*found, table.c.prompt_id.not_in(select(tables.deleted_prompts.c.prompt_id))]
    if filter_.annotator_kinds:
        found.append(table.c.annotator_kind.in_(filter_.annotator_kinds))
    if filter_.queues:
        found.append(table.c.queue.in_(filter_.queues))
    if not filter_.include_gold:
        found.append(table.c.gold.is_(False))
    if filter_.exclude_late:
        found.append(table.c.late.is_(False))
    return [*found, *counts_now(table)]


def _table(kind: int) -> Table:
    return tables.prompts if kind == PROMPTS else tables.feedback
