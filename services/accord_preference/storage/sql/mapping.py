"""Rows of tables <-> the carriers of the seam."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Table

from accord_preference.domain.canonical import array, canonical_json, canonical_text, read_json
from accord_preference.storage.store import (
    AnnotatorRow,
    CompletionRow,
    FeedbackRow,
    FlagRow,
    LeaseRow,
    PromptRow,
    SnapshotRow,
    TaskRow,
)


def columns(new: Sequence[Any]) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
    """Carriers of one sort as names of columns and, for each, their values; as `values` gives them."""
    if not isinstance(new[0], tuple):
        names = list(values(new[0]))
        return names, [tuple(values(row).values()) for row in new]
    if isinstance(new[0], FeedbackRow):
        return FeedbackRow._fields, [
            (*row[:_IDS], array(*map(canonical_text, row.completion_ids)), *row[_IDS + 1 :]) for row in new
        ]
    return new[0]._fields, new  # type: ignore[attr-defined]


def values(row: Any) -> dict[str, Any]:
    """A carrier as values of columns: id lists as JSON, database numbers left to the database."""
    found = row._asdict() if isinstance(row, tuple) else dict(vars(row))  # type: ignore[attr-defined]
    if "completion_ids" in found:
        found["completion_ids"] = canonical_json(found["completion_ids"])
    found.pop("number", None)
    return found


def prompt(row: Row[Any]) -> PromptRow:
    """A row of `prompts`."""
    return PromptRow(row.prompt_id, row.conversation, row.source, row.split, row.record_digest)


def completion(row: Row[Any]) -> CompletionRow:
    """A row of `completions`."""
    return CompletionRow(row.completion_id, row.prompt_id, row.text, row.origin, row.finish_reason)


def task(row: Row[Any]) -> TaskRow:
    """A row of `tasks`."""
    return TaskRow(
        task_id=row.task_id,
        kind=row.kind,
        prompt_id=row.prompt_id,
        completion_ids=tuple(json.loads(row.completion_ids)),
        redundancy=row.redundancy,
        queue=row.queue,
        state=row.state,
        answers=row.answers,
        gold=row.gold,
        turn=row.turn,
        form=row.form,
        flags=row.flags,
    )


def lease(row: Row[Any]) -> LeaseRow:
    """A row of `leases`."""
    return LeaseRow(
        lease_id=row.lease_id,
        task_id=row.task_id,
        annotator_id=row.annotator_id,
        expire_us=row.expire_us,
        ended=row.ended,
        annotator_kind=row.annotator_kind,
        leased_us=row.leased_us,
        outcome=row.outcome,
    )


def annotator(row: Row[Any]) -> AnnotatorRow:
    """A row of `annotators`."""
    return AnnotatorRow(
        row.annotator_id, row.kind, row.display_name, row.state, row.reason, row.created_us, row.state_us
    )


def flag(row: Row[Any]) -> FlagRow:
    """A row of `flags`."""
    return FlagRow(
        row.task_id, row.annotator_id, row.annotator_kind, row.reason, row.comment, row.created_us, row.number
    )


def feedback(row: Row[Any]) -> FeedbackRow:
    """A row of `feedback`."""
    return feedback_of([getattr(row, name) for name in FeedbackRow._fields])


def feedback_of(found: Sequence[Any]) -> FeedbackRow:
    """Values of the columns that `columns_of` names for a FeedbackRow."""
    return FeedbackRow._make((*found[:_IDS], tuple(read_json(found[_IDS])), *found[_IDS + 1 :]))


def columns_of(table: Table, carrier: type[PromptRow | CompletionRow | FeedbackRow]) -> list[ColumnElement[Any]]:
    """The columns of `table` in the order of the carrier's fields: their values make one, by place."""
    return [table.c[name] for name in carrier._fields]


def snapshot(row: Row[Any]) -> SnapshotRow:
    """A row of `snapshots`."""
    return SnapshotRow(
        row.digest, row.kind, row.train_records, row.heldout_records, row.created_us, row.filter, row.number
    )


def key_of(table: Table) -> str:
    """The column that holds the digest by which rows of `table` are named; of annotators their id and kind."""
    return {
        "prompts": "prompt_id",
        "completions": "completion_id",
        "feedback": "feedback_id",
        "annotators": "annotator_id, kind",
    }[table.name]


_IDS = FeedbackRow._fields.index("completion_ids")
