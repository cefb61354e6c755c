"""Writes to an SQL database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, exists, func, insert, literal, or_, select, update

from accord.errors import FailedPrecondition
from accord.preference.v1 import (
    ANNOTATOR_STATE_ACTIVE,
    TASK_STATE_CANCELLED,
    TASK_STATE_DONE,
    TASK_STATE_FLAGGED,
    TASK_STATE_OPEN,
)
from accord_preference.domain.canonical import canonical_json
from accord_preference.storage.sql import mapping, tables
from accord_preference.storage.sql.conditions import CHUNK, in_queue, is_active, is_current, matching, table_of
from accord_preference.storage.sql.read import SqlReader
from accord_preference.storage.store import (
    ANSWERED,
    CANCELLED,
    RETRACTED,
    AnnotatorRow,
    CompletionRow,
    FeedbackRow,
    Filter,
    FlagRow,
    LeaseRow,
    PromptRow,
    SnapshotRow,
    TaskRow,
)
from accord_runtime.serving.idempotency import KeptResponse

UNFINISHED = (TASK_STATE_OPEN, TASK_STATE_FLAGGED)


class SqlWriter(SqlReader):
    """`Writer` over one connection, in a transaction that holds the write lock."""

    async def add_prompts(self, new: Sequence[PromptRow]) -> int:
        return await self._add(tables.prompts, new)

    async def add_completions(self, new: Sequence[CompletionRow]) -> int:
        return await self._add(tables.completions, new)

    async def add_feedback(self, new: Sequence[FeedbackRow]) -> int:
        return await self._add(tables.feedback, new)

    async def add_tasks(self, new: Sequence[TaskRow]) -> None:
        await self._connection.execute(insert(tables.tasks), [mapping.values(row) for row in new])

    async def next_task(self, annotator_id: str, queue: str, now_us: int, *, gold: bool = False) -> TaskRow | None:
        for candidates in self._candidates(annotator_id, queue, now_us, gold):
            if (row := (await self._connection.execute(candidates)).one_or_none()) is not None:
                return mapping.read(TaskRow, row)
        return None

    async def add_lease(self, row: LeaseRow) -> None:
        await self._connection.execute(insert(tables.leases), [mapping.values(row)])

    async def end_lease(self, lease_id: str, outcome: int) -> None:
        lease = tables.leases
        mine = lease.c.lease_id == lease_id
        if outcome != ANSWERED:
            mine = and_(mine, lease.c.ended.is_(False))
        await self._connection.execute(update(lease).where(mine).values(ended=True, outcome=outcome))

    async def renew_lease(self, lease_id: str, expire_us: int) -> None:
        lease = tables.leases
        await self._connection.execute(update(lease).where(lease.c.lease_id == lease_id).values(expire_us=expire_us))

    async def count_answer(self, task_id: str) -> None:
        task = tables.tasks
        mine = task.c.task_id == task_id
        await self._connection.execute(update(task).where(mine).values(answers=task.c.answers + 1))
        done = and_(
            mine,
            task.c.state == TASK_STATE_OPEN,
            task.c.gold.is_(None),
            task.c.answers >= task.c.redundancy,
        )
        await self._connection.execute(update(task).where(done).values(state=TASK_STATE_DONE))

    async def uncount_answer(self, task_id: str) -> None:
        task = tables.tasks
        mine = task.c.task_id == task_id
        await self._connection.execute(update(task).where(mine).values(answers=task.c.answers - 1))
        open_again = and_(mine, task.c.state == TASK_STATE_DONE, task.c.answers < task.c.redundancy)
        await self._connection.execute(update(task).where(open_again).values(state=TASK_STATE_OPEN))

    async def supersede(self, feedback_id: str, by: str, *, retracted: bool = False) -> bool:
        table = tables.feedback
        active = is_current(table)
        replaceable = or_(active, table.c.superseded_by == RETRACTED) if retracted else active
        change = update(table).where(table.c.feedback_id == feedback_id, replaceable).values(superseded_by=by)
        return bool((await self._connection.execute(change)).rowcount)

    async def cancel_tasks(self, queue: str) -> int:
        return await self._cancel(in_queue(tables.tasks.c.queue, queue))

    async def set_task(self, task_id: str, state: int) -> None:
        task, lease = tables.tasks, tables.leases
        await self._connection.execute(update(task).where(task.c.task_id == task_id).values(state=state))
        if state != TASK_STATE_OPEN:
            held = and_(lease.c.task_id == task_id, lease.c.ended.is_(False))
            await self._connection.execute(update(lease).where(held).values(ended=True, outcome=CANCELLED))

    async def add_flag(self, row: FlagRow) -> int:
        flag, task = tables.flags, tables.tasks
        mine = and_(flag.c.task_id == row.task_id, flag.c.annotator_id == row.annotator_id)
        if not await self._count(select(func.count()).select_from(flag).where(mine)):
            await self._connection.execute(insert(flag), [mapping.values(row)])
        count = await self._count(select(func.count()).select_from(flag).where(flag.c.task_id == row.task_id))
        await self._connection.execute(update(task).where(task.c.task_id == row.task_id).values(flags=count))
        return count

    async def put_annotator(self, row: AnnotatorRow) -> None:
        table, values = tables.annotators, mapping.values(row)
        mine = and_(table.c.annotator_id == row.annotator_id, table.c.kind == row.kind)
        if not (await self._connection.execute(update(table).where(mine).values(**values))).rowcount:
            await self._connection.execute(insert(table), [values])

    async def add_annotators(self, annotators: Sequence[tuple[str, int]], now_us: int) -> None:
        await self._add(
            tables.annotators,
            [AnnotatorRow(*who, "", ANNOTATOR_STATE_ACTIVE, "", now_us, now_us) for who in dict.fromkeys(annotators)],
        )

    async def delete_prompts(self, prompt_ids: Sequence[str], now_us: int) -> tuple[int, int]:
        known = await self.deleted(prompt_ids)
        new = [name for name in dict.fromkeys(prompt_ids) if name not in known]
        cancelled = 0
        for start in range(0, len(new), CHUNK):
            chunk = new[start : start + CHUNK]
            gone = [{"prompt_id": name, "deleted_us": now_us} for name in chunk]
            await self._connection.execute(insert(tables.deleted_prompts), gone)
            cancelled += await self._cancel(tables.tasks.c.prompt_id.in_(chunk))
        return len(new), cancelled

    async def _cancel(self, which: ColumnElement[bool]) -> int:
        task, lease = tables.tasks, tables.leases
        doomed = and_(which, task.c.state.in_(UNFINISHED))
        ending = lease.c.task_id.in_(select(task.c.task_id).where(doomed))
        held = and_(ending, lease.c.ended.is_(False))
        await self._connection.execute(update(lease).where(held).values(ended=True, outcome=CANCELLED))
        ordinary = select(func.count()).select_from(task).where(doomed, task.c.gold.is_(None))
        count = await self._count(ordinary)
        await self._connection.execute(update(task).where(doomed).values(state=TASK_STATE_CANCELLED))
        return count

    async def add_snapshot(self, row: SnapshotRow, filter_: Filter) -> None:
        await self._connection.execute(insert(tables.snapshots), [mapping.values(row)])
        kept = await self.snapshot(row.digest)
        assert kept is not None
        record, members = table_of(row.kind), tables.snapshot_members
        order = func.row_number().over(order_by=(record.c.record_digest, record.c.number)) - 1
        chosen = select(literal(kept.number), order, record.c.number, record.c.split).where(
            *matching(row.kind, filter_)
        )
        await self._connection.execute(insert(members).from_select(["snapshot", "position", "member", "split"], chosen))

    async def remember(self, row: KeptResponse, now_us: int) -> None:
        await self._connection.execute(insert(tables.requests), [{**mapping.values(row), "created_us": now_us}])

    async def pin_split(self, heldout_fraction: float, salt: str) -> None:
        facts = tables.facts
        value = canonical_json({"heldout_fraction": heldout_fraction, "salt": salt})
        query = select(facts.c.value).where(facts.c.name == "split")
        kept = (await self._connection.execute(query)).scalar_one_or_none()
        if kept is None:
            await self._connection.execute(insert(facts), [{"name": "split", "value": value}])
        elif kept != value:
            raise FailedPrecondition(
                f"this database splits its prompts by {kept}, but the settings say {value}, and prompts would change "
                "sides. Use the settings that it was created with, or another database",
                reason="SPLIT_CHANGED",
                metadata={"database": kept, "settings": value},
            )

    def _candidates(self, annotator_id: str, queue: str, now_us: int, gold: bool) -> tuple[Select[Any], Select[Any]]:
        """Queries for one task each: one that the annotator never leased, and the oldest one that they released or let
        expire."""
        task, lease = tables.tasks, tables.leases
        mine = and_(lease.c.task_id == task.c.task_id, lease.c.annotator_id == annotator_id)
        wanted = select(task).where(*self._wanted(annotator_id, queue, now_us, gold)).limit(1)
        # Search from their few leases to the tasks, not through all tasks.
        held = (
            select(lease.c.task_id, func.max(lease.c.number).label("last"))
            .where(lease.c.annotator_id == annotator_id)
            .group_by(lease.c.task_id)
            .subquery()
        )
        return (
            wanted.where(~exists().where(mine)).order_by(task.c.turn, task.c.number),
            wanted.join(held, held.c.task_id == task.c.task_id).order_by(held.c.last),
        )

    def _wanted(self, annotator_id: str, queue: str, now_us: int, gold: bool) -> list[Any]:
        """Open tasks that need an answer and that this annotator has not answered, leased or flagged."""
        task, lease, feedback, flag = tables.tasks, tables.leases, tables.feedback, tables.flags
        held = and_(lease.c.task_id == task.c.task_id, is_active(lease, now_us))
        holders = select(func.count()).select_from(lease).where(held).correlate(task).scalar_subquery()
        other = lease.alias()
        own = and_(
            other.c.task_id == task.c.task_id,
            other.c.annotator_id == annotator_id,
            is_active(other, now_us),
        )
        answered = and_(
            feedback.c.task_id == task.c.task_id,
            feedback.c.annotator_id == annotator_id,
            is_current(feedback),
        )
        flagged = and_(flag.c.task_id == task.c.task_id, flag.c.annotator_id == annotator_id)
        # Any number of annotators may answer a gold task.
        place = (
            task.c.gold.is_not(None)
            if gold
            else and_(task.c.gold.is_(None), task.c.answers + holders < task.c.redundancy)
        )
        found = [
            task.c.state == TASK_STATE_OPEN,
            place,
            ~exists().where(own),
            ~exists().where(answered),
            ~exists().where(flagged),
        ]
        return [*found, in_queue(task.c.queue, queue)] if queue else found

    async def _add(self, table: Table, new: Sequence[Any]) -> int:
        """Adds rows by the driver's `executemany`; if keys are equal, the first row is kept."""
        if not new:
            return 0
        names, found = mapping.columns(new)
        marks = ", ".join("?" for _ in names)
        statement = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})"
        unless = f"ON CONFLICT ({mapping.key_of(table)}) DO NOTHING"
        return (await self._connection.exec_driver_sql(f"{statement} {unless}", found)).rowcount
