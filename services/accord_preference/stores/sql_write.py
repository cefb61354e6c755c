"""Writing to an SQL database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, Table, and_, exists, func, insert, literal, select, update

from accord.errors import FailedPrecondition
from accord_preference import tables
from accord_preference.canonical import canonical_json
from accord_preference.store import (
    PROMPTS,
    CompletionRow,
    FeedbackRow,
    Filter,
    LeaseRow,
    PromptRow,
    RequestRow,
    SnapshotRow,
    TaskRow,
)
from accord_preference.stores import rows
from accord_preference.stores.sql_read import SqlReader, conditions

_OPEN, _DONE, _CANCELLED = 1, 2, 3


class SqlWriter(SqlReader):
    """`Writer` over one connection in a transaction that holds the write lock."""

    async def add_prompts(self, new: Sequence[PromptRow]) -> int:
        """See `Writer`."""
        return await self._add(tables.prompts, new)

    async def add_completions(self, new: Sequence[CompletionRow]) -> int:
        """See `Writer`."""
        return await self._add(tables.completions, new)

    async def add_feedback(self, new: Sequence[FeedbackRow]) -> int:
        """See `Writer`."""
        return await self._add(tables.feedback, new)

    async def add_tasks(self, new: Sequence[TaskRow]) -> None:
        """See `Writer`."""
        await self._connection.execute(insert(tables.tasks), [rows.values(row) for row in new])

    async def next_task(self, annotator_id: str, queue: str, now_us: int) -> TaskRow | None:
        """See `Writer`."""
        for candidates in self._candidates(annotator_id, queue, now_us):
            if (row := (await self._connection.execute(candidates)).one_or_none()) is not None:
                return rows.task(row)
        return None

    async def add_lease(self, row: LeaseRow) -> None:
        """See `Writer`."""
        await self._connection.execute(insert(tables.leases), [rows.values(row)])

    async def end_lease(self, lease_id: str) -> None:
        """See `Writer`."""
        lease = tables.leases
        await self._connection.execute(update(lease).where(lease.c.lease_id == lease_id).values(ended=True))

    async def count_answer(self, task_id: str) -> None:
        """See `Writer`."""
        task = tables.tasks
        mine = task.c.task_id == task_id
        await self._connection.execute(update(task).where(mine).values(answers=task.c.answers + 1))
        done = and_(mine, task.c.state == _OPEN, task.c.answers >= task.c.redundancy)
        await self._connection.execute(update(task).where(done).values(state=_DONE))

    async def cancel_tasks(self, queue: str) -> int:
        """See `Writer`."""
        task, lease = tables.tasks, tables.leases
        doomed = and_(task.c.queue == queue, task.c.state == _OPEN)
        ending = lease.c.task_id.in_(select(task.c.task_id).where(doomed))
        await self._connection.execute(update(lease).where(ending, lease.c.ended.is_(False)).values(ended=True))
        return (await self._connection.execute(update(task).where(doomed).values(state=_CANCELLED))).rowcount

    async def add_snapshot(self, row: SnapshotRow, filter_: Filter) -> None:
        """See `Writer`."""
        await self._connection.execute(insert(tables.snapshots), [rows.values(row)])
        kept = await self.snapshot(row.digest)
        assert kept is not None
        record, members = tables.prompts if row.kind == PROMPTS else tables.feedback, tables.snapshot_members
        order = func.row_number().over(order_by=(record.c.record_digest, record.c.number)) - 1
        chosen = select(literal(kept.number), order, record.c.number, record.c.split).where(
            *conditions(row.kind, filter_)
        )
        await self._connection.execute(insert(members).from_select(["snapshot", "position", "member", "split"], chosen))

    async def remember(self, row: RequestRow, now_us: int) -> None:
        """See `Writer`."""
        await self._connection.execute(insert(tables.requests), [{**rows.values(row), "created_us": now_us}])

    async def pin_split(self, heldout_fraction: float, salt: str) -> None:
        """See `Writer`."""
        facts = tables.facts
        value = canonical_json({"heldout_fraction": heldout_fraction, "salt": salt})
        query = select(facts.c.value).where(facts.c.name == "split")
        kept = (await self._connection.execute(query)).scalar_one_or_none()
        if kept is None:
            await self._connection.execute(insert(facts), [{"name": "split", "value": value}])
        elif kept != value:
            raise FailedPrecondition(
                f"this database splits its prompts by {kept}, the settings say {value}: prompts would change "
                "sides; use the settings it was made with, or another database",
                reason="SPLIT_CHANGED",
                metadata={"database": kept, "settings": value},
            )

    def _candidates(self, annotator_id: str, queue: str, now_us: int) -> tuple[Select[Any], Select[Any]]:
        """Queries of one task each: one that they never held; one that they skipped or let expire, the longest ago."""
        task, lease = tables.tasks, tables.leases
        mine = and_(lease.c.task_id == task.c.task_id, lease.c.annotator_id == annotator_id)
        wanted = select(task).where(*self._wanted(annotator_id, queue, now_us)).limit(1)
        last = select(func.max(lease.c.number)).where(mine).correlate(task).scalar_subquery()
        held = select(lease.c.task_id).where(lease.c.annotator_id == annotator_id)
        return (
            wanted.where(~exists().where(mine)).order_by(task.c.number),
            wanted.where(task.c.task_id.in_(held)).order_by(last),
        )

    def _wanted(self, annotator_id: str, queue: str, now_us: int) -> list[Any]:
        """Open, with a place left, and neither answered nor held by this annotator."""
        task, lease, feedback = tables.tasks, tables.leases, tables.feedback
        held = and_(lease.c.task_id == task.c.task_id, lease.c.ended.is_(False), lease.c.expire_us > now_us)
        holders = select(func.count()).select_from(lease).where(held).correlate(task).scalar_subquery()
        other = lease.alias()
        own = and_(
            other.c.task_id == task.c.task_id,
            other.c.annotator_id == annotator_id,
            other.c.ended.is_(False),
            other.c.expire_us > now_us,
        )
        answered = and_(feedback.c.task_id == task.c.task_id, feedback.c.annotator_id == annotator_id)
        found = [
            task.c.state == _OPEN,
            task.c.answers + holders < task.c.redundancy,
            ~exists().where(own),
            ~exists().where(answered),
        ]
        return [*found, task.c.queue == queue] if queue else found

    async def _add(self, table: Table, new: Sequence[Any]) -> int:
        key = rows.key_of(table)
        wanted = {getattr(row, key): row for row in reversed(new)}
        known = {row[0] for row in await self._by_ids(table, list(wanted), key)}
        # `reversed` twice: the first of equals wins, and rows go in as they came.
        fresh = [rows.values(row) for name, row in reversed(wanted.items()) if name not in known]
        if fresh:
            await self._connection.execute(insert(table), fresh)
        return len(fresh)
