"""Reading who judged, how, and where it went, from an SQL database."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.preference import v1 as preference_v1
from accord_preference.storage.sql import mapping, tables
from accord_preference.storage.sql.conditions import CHUNK, in_queue, is_active
from accord_preference.storage.store import (
    HELD,
    PREFERENCES,
    PROMPTS,
    AnnotatorRow,
    FeedbackRow,
    Filter,
    FlagRow,
    History,
    JudgedRow,
    LeaseRow,
    Origins,
    SnapshotRow,
    TaskRow,
)


class SqlHistory:
    """The part of `Reader` that is about annotators and what came of their feedback."""

    def __init__(self, connection: AsyncConnection):
        self._connection = connection

    async def retracted(self, task_id: str, annotator_id: str) -> FeedbackRow | None:
        table = tables.feedback
        query = (
            select(table)
            .where(table.c.task_id == task_id, table.c.annotator_id == annotator_id, table.c.superseded_by == "")
            .order_by(table.c.number.desc())
            .limit(1)
        )
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else mapping.read(FeedbackRow, row)

    async def list_feedback(self, history: History, before: int, limit: int) -> list[tuple[int, FeedbackRow]]:
        table = tables.feedback
        query = select(table).order_by(table.c.number.desc()).limit(limit)
        if before:
            query = query.where(table.c.number < before)
        if history.annotator is not None:
            name, kind = history.annotator
            query = query.where(table.c.annotator_id == name, table.c.annotator_kind == kind)
        if history.prompt_id:
            query = query.where(table.c.prompt_id == history.prompt_id)
        if history.task_id:
            query = query.where(table.c.task_id == history.task_id)
        if history.queue:
            query = query.where(in_queue(table.c.queue, history.queue))
        return [(row.number, mapping.read(FeedbackRow, row)) for row in await self._connection.execute(query)]

    async def held(self, annotator_id: str, queue: str, now_us: int) -> LeaseRow | None:
        lease, task = tables.leases, tables.tasks
        query = (
            select(lease)
            .join(task, task.c.task_id == lease.c.task_id)
            .where(lease.c.annotator_id == annotator_id, is_active(lease, now_us))
            .where(task.c.state == preference_v1.TASK_STATE_OPEN, *([in_queue(task.c.queue, queue)] if queue else []))
            .order_by(lease.c.number.desc())
            .limit(1)
        )
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else mapping.read(LeaseRow, row)

    async def annotator(self, annotator_id: str, kind: int) -> AnnotatorRow | None:
        table = tables.annotators
        query = select(table).where(table.c.annotator_id == annotator_id, table.c.kind == kind)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else mapping.read(AnnotatorRow, row)

    async def list_annotators(self, after: tuple[str, int], limit: int, kind: int, state: int) -> list[AnnotatorRow]:
        table = tables.annotators
        name, after_kind = after
        behind = or_(table.c.annotator_id > name, and_(table.c.annotator_id == name, table.c.kind > after_kind))
        query = select(table).where(behind).order_by(table.c.annotator_id, table.c.kind).limit(limit)
        if kind:
            query = query.where(table.c.kind == kind)
        if state:
            query = query.where(table.c.state == state)
        return [mapping.read(AnnotatorRow, row) for row in await self._connection.execute(query)]

    async def counts(self, annotators: Sequence[str]) -> dict[tuple[str, int], int]:
        table, found = tables.feedback, {}
        for start in range(0, len(annotators), CHUNK):
            query = (
                select(table.c.annotator_id, table.c.annotator_kind, func.count())
                .where(table.c.annotator_id.in_(annotators[start : start + CHUNK]), table.c.superseded_by.is_(None))
                .group_by(table.c.annotator_id, table.c.annotator_kind)
            )
            found.update({(row[0], row[1]): int(row[2]) for row in await self._connection.execute(query)})
        return found

    async def list_flags(self, queue: str, before: int, limit: int) -> list[tuple[FlagRow, TaskRow]]:
        flag, task = tables.flags, tables.tasks
        query = select(flag).join(task, task.c.task_id == flag.c.task_id).order_by(flag.c.number.desc()).limit(limit)
        if queue:
            query = query.where(in_queue(task.c.queue, queue))
        if before:
            query = query.where(flag.c.number < before)
        found = [mapping.read(FlagRow, row) for row in await self._connection.execute(query)]
        about = select(task).where(task.c.task_id.in_([row.task_id for row in found]))
        known = {row.task_id: mapping.read(TaskRow, row) for row in await self._connection.execute(about)}
        return [(row, known[row.task_id]) for row in found]

    async def judged(self, filter_: Filter) -> AsyncIterator[JudgedRow]:
        table, task = tables.feedback, tables.tasks
        query = (
            select(*(table.c[name] for name in JudgedRow._fields[:-1]), task.c.gold)
            .join(task, task.c.task_id == table.c.task_id, isouter=True)
            .where(table.c.superseded_by.is_(None))
            .order_by(table.c.number)
        )
        if filter_.sources:
            query = query.where(table.c.label.in_(filter_.sources))
        if filter_.annotator_kinds:
            query = query.where(table.c.annotator_kind.in_(filter_.annotator_kinds))
        if filter_.queues:
            query = query.where(or_(*(in_queue(table.c.queue, queue) for queue in filter_.queues)))
        async for row in await self._connection.stream(query):
            yield JudgedRow._make(row)

    async def outcomes(self, queues: Sequence[str]) -> dict[tuple[str, int], dict[int, int]]:
        lease, task = tables.leases, tables.tasks
        columns = (lease.c.annotator_id, lease.c.annotator_kind, lease.c.outcome)
        query = select(*columns, func.count()).where(lease.c.outcome != HELD).group_by(*columns)
        if queues:
            query = query.join(task, task.c.task_id == lease.c.task_id)
            query = query.where(or_(*(in_queue(task.c.queue, queue) for queue in queues)))
        found: dict[tuple[str, int], dict[int, int]] = defaultdict(dict)
        for name, kind, outcome, count in await self._connection.execute(query):
            found[name, kind][outcome] = count
        return found

    async def corrected(self, queues: Sequence[str]) -> dict[tuple[str, int], int]:
        table = tables.feedback
        columns = (table.c.annotator_id, table.c.annotator_kind)
        query = select(*columns, func.count()).where(table.c.superseded_by.is_not(None)).group_by(*columns)
        if queues:
            query = query.where(or_(*(in_queue(table.c.queue, queue) for queue in queues)))
        return {(row[0], row[1]): int(row[2]) for row in await self._connection.execute(query)}

    async def lengths(self, completions: Sequence[str]) -> dict[str, int]:
        table, found, wanted = tables.completions, {}, list(dict.fromkeys(completions))
        for start in range(0, len(wanted), CHUNK):
            query = select(table.c.completion_id, func.length(table.c.text)).where(
                table.c.completion_id.in_(wanted[start : start + CHUNK])
            )
            found.update({row[0]: int(row[1]) for row in await self._connection.execute(query)})
        return found

    async def deleted(self, prompt_ids: Sequence[str]) -> set[str]:
        table, wanted = tables.deleted_prompts, list(dict.fromkeys(prompt_ids))
        found: set[str] = set()
        for start in range(0, len(wanted), CHUNK):
            query = select(table.c.prompt_id).where(table.c.prompt_id.in_(wanted[start : start + CHUNK]))
            found.update(row[0] for row in await self._connection.execute(query))
        return found

    async def snapshot_uses(
        self, *, annotator: tuple[str, int] | None = None, prompt_id: str = "", completion_id: str = ""
    ) -> list[tuple[SnapshotRow, int]]:
        feedback, prompts = tables.feedback, tables.prompts
        if annotator is not None:
            name, kind = annotator
            about = and_(feedback.c.annotator_id == name, feedback.c.annotator_kind == kind)
        elif prompt_id:
            about = feedback.c.prompt_id == prompt_id
        else:
            # Ids are 64 hexadecimal digits: one is found in the list as it is written.
            about = feedback.c.completion_ids.contains(completion_id, autoescape=True)
        found = await self._uses(PREFERENCES, feedback, about)
        if prompt_id:
            found += await self._uses(PROMPTS, prompts, prompts.c.prompt_id == prompt_id)
        return sorted(found, key=lambda use: -use[0].number)

    async def snapshot_origins(self, snapshot: SnapshotRow) -> Origins:
        members, feedback, completions = tables.snapshot_members, tables.feedback, tables.completions
        held = and_(members.c.snapshot == snapshot.number, members.c.member == feedback.c.number)
        if snapshot.kind == PROMPTS:
            return await self._prompt_origins(snapshot)
        who = (feedback.c.annotator_id, feedback.c.annotator_kind)
        annotators = select(*who, func.count()).join(members, held).group_by(*who)
        sources = select(feedback.c.label, func.count()).join(members, held).group_by(feedback.c.label)
        judged: set[str] = set()
        async for row in await self._connection.stream(select(feedback.c.completion_ids).join(members, held)):
            judged.update(json.loads(row[0]))
        wanted, origins = sorted(judged), Counter[str | None]()
        for start in range(0, len(wanted), CHUNK):
            chunk = completions.c.completion_id.in_(wanted[start : start + CHUNK])
            for row in await self._connection.execute(select(completions.c.origin).where(chunk)):
                origins[_without_seed(row[0])] += 1
        prompts = select(func.count(feedback.c.prompt_id.distinct())).join(members, held)
        return Origins(
            annotators={(row[0], row[1]): row[2] for row in await self._connection.execute(annotators)},
            sources={row[0]: row[1] for row in await self._connection.execute(sources)},
            completions=origins,
            prompts=int((await self._connection.execute(prompts)).scalar_one()),
        )

    async def _prompt_origins(self, snapshot: SnapshotRow) -> Origins:
        members, prompts = tables.snapshot_members, tables.prompts
        held = and_(members.c.snapshot == snapshot.number, members.c.member == prompts.c.number)
        query = select(prompts.c.source, func.count()).join(members, held).group_by(prompts.c.source)
        sources = {row[0]: int(row[1]) for row in await self._connection.execute(query)}
        return Origins({}, sources, {}, sum(sources.values()))

    async def _uses(self, kind: int, table: Any, about: ColumnElement[bool]) -> list[tuple[SnapshotRow, int]]:
        snapshots, members = tables.snapshots, tables.snapshot_members
        counted = (
            select(members.c.snapshot, func.count().label("records"))
            .join(table, table.c.number == members.c.member)
            .join(snapshots, snapshots.c.number == members.c.snapshot)
            .where(snapshots.c.kind == kind, about)
            .group_by(members.c.snapshot)
            .subquery()
        )
        query = select(snapshots, counted.c.records).join(counted, counted.c.snapshot == snapshots.c.number)
        return [(mapping.read(SnapshotRow, row), int(row.records)) for row in await self._connection.execute(query)]


def _without_seed(origin: str | None) -> str | None:
    if origin is None:
        return None
    value = json.loads(origin)
    value["seed"] = 0
    return json.dumps(value, sort_keys=True)
