"""Query conditions that several parts share, and the tables that they apply to."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, FromClause, Table, and_, func, select, tuple_

from accord.preference import v1 as preference_v1
from accord_preference.storage.rows import PROMPTS, Filter
from accord_preference.storage.sql import tables

# Databases limit the parameters of one statement, so longer lists are queried in chunks.
CHUNK = 500


def table_of(kind: int) -> Table:
    """The table that holds the records of snapshots of this kind."""
    return tables.prompts if kind == PROMPTS else tables.feedback


def in_queue(column: ColumnElement[str], queue: str) -> ColumnElement[bool]:
    """Whether a queue's name is `queue` or, if `queue` ends in `/`, begins with it."""
    return func.substr(column, 1, len(queue)) == queue if queue.endswith("/") else column == queue


def is_active(lease: FromClause, now_us: int) -> ColumnElement[bool]:
    """Whether a lease reserves its task at `now_us`, like `LeaseRow.is_active`."""
    return and_(lease.c.ended.is_(False), lease.c.expire_us > now_us)


def is_current(feedback: FromClause) -> ColumnElement[bool]:
    """Whether feedback is active: neither corrected nor retracted."""
    return feedback.c.superseded_by.is_(None)


def matching(kind: int, filter_: Filter) -> list[ColumnElement[bool]]:
    """A filter as conditions on the table that holds records of this kind."""
    table = table_of(kind)
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
    return [*found, *_counts(table)]


def _counts(feedback: Any) -> list[ColumnElement[bool]]:
    """Feedback that new snapshots include: active, from an active annotator, on a prompt that is not deleted."""
    annotators, deleted = tables.annotators, tables.deleted_prompts
    inactive = annotators.c.state != preference_v1.ANNOTATOR_STATE_ACTIVE
    left_out = select(annotators.c.annotator_id, annotators.c.kind).where(inactive)
    return [
        is_current(feedback),
        tuple_(feedback.c.annotator_id, feedback.c.annotator_kind).not_in(left_out),
        feedback.c.prompt_id.not_in(select(deleted.c.prompt_id)),
    ]
