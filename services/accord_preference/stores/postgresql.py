"""Writing to PostgreSQL, where several transactions write at once: rows are locked, and added in bulk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, exists, select

from accord.errors import Aborted
from accord_preference import tables
from accord_preference.column_types import AnyText, escape
from accord_preference.store import TaskRow
from accord_preference.stores import rows
from accord_preference.stores.sql_write import SqlWriter


class PostgresWriter(SqlWriter):
    """`Writer` over one connection in a transaction that is one of many."""

    async def task(self, task_id: str) -> TaskRow | None:
        """See `Writer`: the row is locked."""
        query = select(tables.tasks).where(tables.tasks.c.task_id == task_id)
        row = (await self._connection.execute(_locking(query))).one_or_none()
        return None if row is None else rows.task(row)

    async def next_task(self, annotator_id: str, queue: str, now_us: int, *, gold: bool = False) -> TaskRow | None:
        """See `Writer`. Only when nothing else is left are tasks waited for that others have locked.

        Nobody waits for a task with another one locked, so nobody waits for ever.
        """
        passed: list[int] = []
        for candidates in self._candidates(annotator_id, queue, now_us, gold):
            while True:
                query = candidates.where(tables.tasks.c.number.not_in(passed)) if passed else candidates
                row = (await self._connection.execute(_locking(query, skip_locked=True))).one_or_none()
                if row is None:
                    break
                if await self._still_wanted(row.number, annotator_id, queue, now_us, gold):
                    return rows.task(row)
                passed.append(row.number)
        if passed:
            raise Aborted("others took the last open tasks at this moment", reason="DATABASE_CONFLICT")
        return await self._wait_for_task(annotator_id, queue, now_us, gold)

    async def _wait_for_task(self, annotator_id: str, queue: str, now_us: int, gold: bool) -> TaskRow | None:
        for candidates in self._candidates(annotator_id, queue, now_us, gold):
            while True:
                savepoint = await self._connection.begin_nested()
                row = (await self._connection.execute(_locking(candidates))).one_or_none()
                if row is None:
                    break
                if await self._still_wanted(row.number, annotator_id, queue, now_us, gold):
                    return rows.task(row)
                await savepoint.rollback()  # unlocks it
        return None

    async def _cancel(self, which: ColumnElement[bool]) -> int:
        """Whoever is leasing one of the tasks is waited for, so that their lease ends with the others."""
        task = tables.tasks
        doomed = select(task.c.number).where(which, task.c.state.in_((1, 4))).order_by(task.c.number)
        await self._connection.execute(_locking(doomed))
        return await super()._cancel(which)

    async def _still_wanted(self, number: int, annotator_id: str, queue: str, now_us: int, gold: bool) -> bool:
        """Whether a locked task has a place left: its last one may have gone between the look at its leases and the
        lock. From now on none goes."""
        wanted = exists().where(tables.tasks.c.number == number, *self._wanted(annotator_id, queue, now_us, gold))
        return bool((await self._connection.execute(select(wanted))).scalar_one())

    async def _add(self, table: Table, new: Sequence[Any]) -> int:
        """One statement for all rows, a column an array: of equals the first is kept."""
        if not new:
            return 0
        found = [rows.values(row) for row in new]
        names = list(found[0])
        columns = [table.c[name] for name in names]
        kinds = [column.type.compile(self._connection.dialect).split(" COLLATE")[0] for column in columns]
        arrays = [[row[name] for row in found] for name in names]
        for place, column in enumerate(columns):
            if isinstance(column.type, AnyText):
                arrays[place] = [None if text is None else escape(text) for text in arrays[place]]
        statement = (
            f"INSERT INTO {table.name} ({', '.join(names)}) "
            f"SELECT * FROM unnest({', '.join(f'%s::{kind}[]' for kind in kinds)}) "
            f"ON CONFLICT ({rows.key_of(table)}) DO NOTHING"
        )
        return (await self._connection.exec_driver_sql(statement, tuple(arrays))).rowcount


def _locking(query: Select[Any], *, skip_locked: bool = False) -> Select[Any]:
    # NO KEY: rows that only refer to a locked task are not held up.
    return query.with_for_update(of=tables.tasks, key_share=True, skip_locked=skip_locked)
