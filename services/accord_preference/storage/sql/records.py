"""Reads the records of snapshots and exports page by page, because there may be millions."""

from __future__ import annotations

import json
from array import array
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Row, Select, Table, Text, any_, bindparam, func, select
from sqlalchemy.types import TypeEngine

from accord_preference.storage.sql import mapping, tables
from accord_preference.storage.sql.column_types import escape
from accord_preference.storage.sql.conditions import matching, table_of
from accord_preference.storage.sql.history import SqlHistory
from accord_preference.storage.store import (
    PROMPTS,
    CompletionRow,
    FeedbackRow,
    Filter,
    PromptRow,
    RecordRow,
    SnapshotRow,
)

K = TypeVar("K", PromptRow, CompletionRow)
# The fields of a completion that are not in its feedback.
_ANSWER = CompletionRow._fields[2:]
# The positions in a row of `_records` at which its feedback and the joined completions begin.
_FEEDBACK = 1 + len(PromptRow._fields)
_ANSWERS = _FEEDBACK + len(FeedbackRow._fields)
_JOINED = (_ANSWERS, _ANSWERS + len(_ANSWER))
# A list of ids is stored as ["ID","ID",...], and an id has 64 characters.
_ID, _FIRST_ID, _NEXT_ID = 64, 3, 67
_BY_INDEX = "SELECT " + ", ".join(
    f"set_config('enable_{way}', 'off', true)" for way in ("hashjoin", "mergejoin", "seqscan", "bitmapscan")
)


class SqlRecords(SqlHistory):
    """The part of `Reader` about records and rows by id."""

    async def prompts(self, ids: Sequence[str]) -> dict[str, PromptRow]:
        return {row.prompt_id: row for row in await self._by_ids(tables.prompts, ids, PromptRow)}

    async def completions(self, ids: Sequence[str]) -> dict[str, CompletionRow]:
        return {row.completion_id: row for row in await self._by_ids(tables.completions, ids, CompletionRow)}

    async def snapshot_page(
        self, snapshot: SnapshotRow, after: tuple[int | str, ...], limit: int, split: int
    ) -> list[RecordRow]:
        members, number = tables.snapshot_members, table_of(snapshot.kind).c.number
        wanted = select(members).where(members.c.snapshot == snapshot.number).order_by(members.c.position).limit(limit)
        if after:
            wanted = wanted.where(members.c.position > after[0])
        if split:
            wanted = wanted.where(members.c.split == split)
        # Select the page first and then its records, or the planner may join the whole table.
        page = wanted.subquery()
        query = _records(snapshot.kind, page.c.position).join(page, number == page.c.member).order_by(page.c.position)
        await self._by_index()
        return await self._read(snapshot.kind, (await self._connection.execute(query)).all())

    async def record_numbers(self, kind: int, filter_: Filter) -> array[int]:
        table = table_of(kind)
        query = select(table.c.number).where(*matching(kind, filter_)).order_by(table.c.record_digest, table.c.number)
        found = array("q")
        async for part in (await self._connection.stream(query)).scalars().partitions(10_000):
            found.extend(part)
        return found

    async def records(self, kind: int, numbers: Sequence[int]) -> list[RecordRow]:
        number = table_of(kind).c.number
        query = _records(kind, number).where(self._among(number, BigInteger))
        await self._by_index()
        found = (await self._connection.execute(query, {"wanted": self._wanted_keys(numbers)})).all()
        by_number = {row[0]: row for row in found}
        return await self._read(kind, [by_number[one] for one in numbers])

    async def record_digests(self, kind: int, filter_: Filter) -> AsyncIterator[tuple[str, int]]:
        table = table_of(kind)
        query = select(table.c.record_digest, table.c.split).where(*matching(kind, filter_))
        query = query.order_by(table.c.record_digest, table.c.number)
        async for part in (await self._connection.stream(query)).partitions(10_000):
            for digest, split in part:
                yield digest, split

    async def _by_index(self) -> None:
        """Makes this transaction look up rows by index. For a page this is right at any table size; PostgreSQL would
        often read whole tables for each page."""
        if self._connection.dialect.name == "postgresql":
            await self._connection.exec_driver_sql(_BY_INDEX)

    async def _read(self, kind: int, found: Sequence[Row[Any]]) -> list[RecordRow]:
        """The records in the result of a `_records` query."""
        if kind == PROMPTS:
            return [RecordRow((row[0],), PromptRow._make(row[1:])) for row in found]
        made, more = [], list[str]()
        for row in found:
            prompt = PromptRow._make(row[1:_FEEDBACK])
            feedback = mapping.make(FeedbackRow, row[_FEEDBACK:_ANSWERS])
            # The judged completions belong to the feedback's prompt.
            answers = [
                CompletionRow(name, prompt.prompt_id, *row[place : place + len(_ANSWER)])
                for name, place in zip(feedback.completion_ids, _JOINED, strict=False)
            ]
            more += feedback.completion_ids[len(_JOINED) :]
            made.append(RecordRow((row[0],), prompt, tuple(answers), feedback))
        return await self._completed(made, more) if more else made

    async def _completed(self, found: list[RecordRow], more: Sequence[str]) -> list[RecordRow]:
        """The records with the completions that were not joined."""
        known = await self.completions(more)
        return [
            row._replace(
                completions=(*row.completions, *[known[name] for name in row.feedback.completion_ids[len(_JOINED) :]])
            )
            for row in found
            if row.feedback is not None
        ]

    async def _by_ids(self, table: Table, ids: Sequence[str], kind: type[K]) -> list[K]:
        """The existing rows of `table` with these keys."""
        query = select(*mapping.columns_of(table, kind)).where(self._among(table.c[mapping.key_of(table)], Text))
        wanted = {"wanted": self._wanted_keys(list(dict.fromkeys(ids)))}
        return [kind._make(row) for row in await self._connection.execute(query, wanted)]

    def _among(self, key: ColumnElement[Any], kind: type[TypeEngine[Any]]) -> ColumnElement[bool]:
        """Whether `key` is in the parameter `wanted`. One parameter for any number of keys means one prepared
        statement."""
        if self._connection.dialect.name == "postgresql":
            return key == any_(bindparam("wanted", type_=ARRAY(kind)))
        wanted = func.json_each(bindparam("wanted", type_=Text)).table_valued("value")
        return key.in_(select(wanted.c.value))

    def _wanted_keys(self, keys: Sequence[Any]) -> Any:
        if self._connection.dialect.name == "postgresql":
            return [escape(key) if isinstance(key, str) else key for key in keys]
        return json.dumps(list(keys))


def _records(kind: int, position: ColumnElement[int]) -> Select[Any]:
    """The query of records of this kind: the position, the columns of a PromptRow and a FeedbackRow, and the `_ANSWER`
    columns of two completions, the number in a comparison."""
    prompt = mapping.columns_of(tables.prompts, PromptRow)
    if kind == PROMPTS:
        return select(position, *prompt).select_from(tables.prompts)
    feedback = tables.feedback
    source: Any = feedback.join(tables.prompts, tables.prompts.c.prompt_id == feedback.c.prompt_id)
    columns = [*prompt, *mapping.columns_of(feedback, FeedbackRow)]
    for place in range(len(_JOINED)):
        answer = tables.completions.alias(f"answer_{place}")
        name = func.substr(feedback.c.completion_ids, _FIRST_ID + place * _NEXT_ID, _ID)
        source = source.outerjoin(answer, answer.c.completion_id == name)
        columns += [answer.c[field] for field in _ANSWER]
    return select(position, *columns).select_from(source)
