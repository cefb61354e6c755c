"""Reading from an SQL database."""

from __future__ import annotations

import json
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Row,
    Select,
    Table,
    Text,
    and_,
    any_,
    bindparam,
    distinct,
    func,
    select,
)
from sqlalchemy.types import TypeEngine

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
_PROMPT = len(fields(PromptRow))


class SqlReader(SqlHistory):
    """`Reader` over one connection in a transaction."""

    async def prompts(self, ids: Sequence[str]) -> dict[str, PromptRow]:
        """See `Reader`."""
        return {row.prompt_id: row for row in await self._by_ids(tables.prompts, ids, PromptRow)}

    async def completions(self, ids: Sequence[str]) -> dict[str, CompletionRow]:
        """See `Reader`."""
        return {row.completion_id: row for row in await self._by_ids(tables.completions, ids, CompletionRow)}

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
        members, number = tables.snapshot_members, _table(snapshot.kind).c.number
        wanted = select(members).where(members.c.snapshot == snapshot.number).order_by(members.c.position).limit(limit)
        if after:
            wanted = wanted.where(members.c.position > after[0])
        if split:
            wanted = wanted.where(members.c.split == split)
        # First the page and then its records: a planner that thinks little of the rest would join all of it.
        page = wanted.subquery()
        query = _records(snapshot.kind, page.c.position).join(page, number == page.c.member).order_by(page.c.position)
        return await self._read(snapshot.kind, (await self._connection.execute(query)).all())

    async def record_numbers(self, kind: int, filter_: Filter) -> array[int]:
        """See `Reader`."""
        table = _table(kind)
        query = select(table.c.number).where(*conditions(kind, filter_)).order_by(table.c.record_digest, table.c.number)
        found = array("q")
        async for part in (await self._connection.stream(query)).scalars().partitions(10_000):
            found.extend(part)
        return found

    async def records(self, kind: int, numbers: Sequence[int]) -> list[RecordRow]:
        """See `Reader`."""
        number = _table(kind).c.number
        query = _records(kind, number).where(self._among(number, BigInteger))
        found = (await self._connection.execute(query, {"wanted": self._wanted_keys(numbers)})).all()
        by_number = {row[0]: row for row in found}
        return await self._read(kind, [by_number[one] for one in numbers])

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

    async def _read(self, kind: int, found: Sequence[Row[Any]]) -> list[RecordRow]:
        """What a query of `_records` found, with its completions."""
        prompts = [PromptRow(*row[1 : 1 + _PROMPT]) for row in found]
        if kind == PROMPTS:
            return [RecordRow((row[0],), prompt) for row, prompt in zip(found, prompts, strict=True)]
        judged = [rows.feedback_of(row[1 + _PROMPT :]) for row in found]
        completions = await self.completions([name for row in judged for name in row.completion_ids])
        return [
            RecordRow((row[0],), prompt, tuple([completions[name] for name in feedback.completion_ids]), feedback)
            for row, prompt, feedback in zip(found, prompts, judged, strict=True)
        ]

    async def _by_ids(self, table: Table, ids: Sequence[str], carrier: type[T]) -> list[T]:
        """The carriers of those rows of `table` that exist."""
        query = select(*rows.columns_of(table, carrier)).where(self._among(table.c[rows.key_of(table)], Text))
        wanted = {"wanted": self._wanted_keys(list(dict.fromkeys(ids)))}
        return [carrier(*row) for row in await self._connection.execute(query, wanted)]

    def _among(self, key: ColumnElement[Any], kind: type[TypeEngine[Any]]) -> ColumnElement[bool]:
        """Whether `key` is in the parameter `wanted`: one parameter for any number, and one statement to prepare."""
        if self._connection.dialect.name == "postgresql":
            return key == any_(bindparam("wanted", type_=ARRAY(kind)))
        wanted = func.json_each(bindparam("wanted", type_=Text)).table_valued("value")
        return key.in_(select(wanted.c.value))

    def _wanted_keys(self, keys: Sequence[Any]) -> Any:
        if self._connection.dialect.name == "postgresql":
            return [escape(key) if isinstance(key, str) else key for key in keys]
        return json.dumps(list(keys))

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


def _records(kind: int, position: ColumnElement[int]) -> Select[Any]:
    """Records of this kind with their prompts: the position, the columns of a PromptRow, those of a FeedbackRow."""
    prompt = rows.columns_of(tables.prompts, PromptRow)
    if kind == PROMPTS:
        return select(position, *prompt).select_from(tables.prompts)
    feedback = tables.feedback
    about = feedback.join(tables.prompts, tables.prompts.c.prompt_id == feedback.c.prompt_id)
    return select(position, *prompt, *rows.columns_of(feedback, FeedbackRow)).select_from(about)
