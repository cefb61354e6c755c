"""Writes to PostgreSQL, where several transactions write at once: rows are locked and added in bulk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, exists, select

from accord.errors import Aborted
from accord_preference.storage.sql import mapping, tables
from accord_preference.storage.sql.column_types import escape
from accord_preference.storage.sql.write import UNFINISHED, SqlWriter
from accord_preference.storage.store import TaskRow

# Fewer than FEW rows are inserted as values; more are copied, BLOCK rows at a time.
FEW, BLOCK = 20, 500
# Characters that must be escaped for COPY.
_SPECIAL = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_NOT_PLAIN = re.compile("[\\\\\t\n\r\0\x1f]").search


class PostgresWriter(SqlWriter):
    """`Writer` over one connection, in one of many concurrent transactions."""

    async def task(self, task_id: str) -> TaskRow | None:
        """Locks the row."""
        query = select(tables.tasks).where(tables.tasks.c.task_id == task_id)
        row = (await self._connection.execute(_locking(query))).one_or_none()
        return None if row is None else mapping.read(TaskRow, row)

    async def next_task(self, annotator_id: str, queue: str, now_us: int, *, gold: bool = False) -> TaskRow | None:
        """Waits for tasks that other transactions have locked only if no other task is left.

        A transaction that waits for a task has no other task locked, so there is no deadlock.
        """
        passed: list[int] = []
        for candidates in self._candidates(annotator_id, queue, now_us, gold):
            while True:
                query = candidates.where(tables.tasks.c.number.not_in(passed)) if passed else candidates
                row = (await self._connection.execute(_locking(query, skip_locked=True))).one_or_none()
                if row is None:
                    break
                if await self._still_wanted(row.number, annotator_id, queue, now_us, gold):
                    return mapping.read(TaskRow, row)
                passed.append(row.number)
        if passed:
            raise Aborted("other transactions have just leased the last open tasks", reason="DATABASE_CONFLICT")
        return await self._wait_for_task(annotator_id, queue, now_us, gold)

    async def _wait_for_task(self, annotator_id: str, queue: str, now_us: int, gold: bool) -> TaskRow | None:
        for candidates in self._candidates(annotator_id, queue, now_us, gold):
            while True:
                savepoint = await self._connection.begin_nested()
                row = (await self._connection.execute(_locking(candidates))).one_or_none()
                if row is None:
                    break
                if await self._still_wanted(row.number, annotator_id, queue, now_us, gold):
                    return mapping.read(TaskRow, row)
                await savepoint.rollback()  # unlocks it
        return None

    async def _cancel(self, which: ColumnElement[bool]) -> int:
        """Waits for transactions that are leasing one of the tasks, so that their leases end too."""
        task = tables.tasks
        doomed = select(task.c.number).where(which, task.c.state.in_(UNFINISHED)).order_by(task.c.number)
        await self._connection.execute(_locking(doomed))
        return await super()._cancel(which)

    async def _still_wanted(self, number: int, annotator_id: str, queue: str, now_us: int, gold: bool) -> bool:
        """Whether a locked task still needs an answer: another annotator may have leased it between the query and the
        lock. Once it is locked, none can."""
        wanted = exists().where(tables.tasks.c.number == number, *self._wanted(annotator_id, queue, now_us, gold))
        return bool((await self._connection.execute(select(wanted))).scalar_one())

    async def _add(self, table: Table, new: Sequence[Any]) -> int:
        """Adds new rows by COPY; if keys are equal, the first row is kept."""
        if not new:
            return 0
        names, found = mapping.columns(new)
        if len(found) < FEW:
            places = f"({', '.join('%s' for _ in names)})"
            values = [_bound(value) for row in found for value in row]
            source = f"VALUES {', '.join([places] * len(found))}"
            return (await self._connection.exec_driver_sql(_insert(table, names, source), tuple(values))).rowcount
        if mapping.key_of(table) != names[0]:
            return await self._add_staged(table, names, found)
        different: dict[str, Sequence[Any]] = {}
        for row in found:
            different.setdefault(row[0], row)
        for known in await self._among_keys(table, list(different)):
            del different[known]
        return await self._add_unknown(table, names, list(different.values()))

    async def _among_keys(self, table: Table, keys: Sequence[str]) -> list[str]:
        """The `keys` that are in `table`. Keys are digests and need no quoting."""
        key = mapping.key_of(table)
        query = f"SELECT {key} FROM {table.name} WHERE {key} = ANY(%s::varchar[])"
        found = await self._connection.exec_driver_sql(query, (f"{{{','.join(keys)}}}",))
        return list(found.scalars())

    async def _add_unknown(self, table: Table, names: Sequence[str], found: Sequence[Sequence[Any]]) -> int:
        """Copies straight into the table, at two thirds of the cost of staging. Falls back to staging if another
        transaction has added one of the rows in the meantime."""
        from psycopg.errors import UniqueViolation

        if not found:
            return 0
        savepoint = await self._connection.begin_nested()
        try:
            await self._copy(table.name, names, found)
        except UniqueViolation:
            await savepoint.rollback()
            return await self._add_staged(table, names, found)
        await savepoint.commit()
        return len(found)

    async def _add_staged(self, table: Table, names: Sequence[str], found: Sequence[Sequence[Any]]) -> int:
        """Copies into a temporary table, then inserts the new rows from there."""
        staged, columns = f"new_{table.name}", ", ".join(names)
        await self._connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {staged} ON COMMIT DROP "
            f"AS SELECT {columns} FROM {table.name} LIMIT 0"
        )
        await self._copy(staged, names, found)
        source = f"SELECT {columns} FROM {staged}"
        count = (await self._connection.exec_driver_sql(_insert(table, names, source))).rowcount
        await self._connection.exec_driver_sql(f"TRUNCATE {staged}")
        return count

    async def _copy(self, table: str, names: Sequence[str], found: Sequence[Sequence[Any]]) -> None:
        driver = (await self._connection.get_raw_connection()).driver_connection
        assert driver is not None
        async with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as copy:
            for start in range(0, len(found), BLOCK):
                await copy.write("".join(map(_line, found[start : start + BLOCK])))


def _insert(table: Table, names: Sequence[str], source: str) -> str:
    return f"INSERT INTO {table.name} ({', '.join(names)}) {source} ON CONFLICT ({mapping.key_of(table)}) DO NOTHING"


def _bound(value: Any) -> Any:
    return escape(value) if isinstance(value, str) else value


def _line(row: Sequence[Any]) -> str:
    """A row in COPY's text format."""
    return "\t".join([_field(value) for value in row]) + "\n"


def _field(value: Any) -> str:
    if isinstance(value, str):
        return escape(value).translate(_SPECIAL) if _NOT_PLAIN(value) else value
    return "\\N" if value is None else str(value)


def _locking(query: Select[Any], *, skip_locked: bool = False) -> Select[Any]:
    # NO KEY, so that rows that only refer to a locked task are not blocked.
    return query.with_for_update(of=tables.tasks, key_share=True, skip_locked=skip_locked)
