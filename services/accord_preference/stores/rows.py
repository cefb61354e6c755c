"""Rows of tables <-> the carriers of the seam."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Row, Table

from accord_preference.store import (
    AnnotatorRow,
    CompletionRow,
    FeedbackRow,
    FlagRow,
    LeaseRow,
    PromptRow,
    SnapshotRow,
    TaskRow,
)


def values(row: Any) -> dict[str, Any]:
    """A carrier as values of columns: id lists as JSON, database numbers left to the database."""
    found = dict(vars(row))
    if "completion_ids" in found:
        found["completion_ids"] = json.dumps(found["completion_ids"], separators=(",", ":"))
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
    return FeedbackRow(
        feedback_id=row.feedback_id,
        prompt_id=row.prompt_id,
        annotator_id=row.annotator_id,
        annotator_kind=row.annotator_kind,
        kind=row.kind,
        judgement=row.judgement,
        completion_ids=tuple(json.loads(row.completion_ids)),
        task_id=row.task_id,
        queue=row.queue,
        source=row.source,
        label=row.label,
        created_us=row.created_us,
        late=row.late,
        split=row.split,
        record_digest=row.record_digest,
        comment=row.comment,
        criteria=row.criteria,
        supersedes=row.supersedes,
        superseded_by=row.superseded_by,
        elapsed_us=row.elapsed_us,
        gold=row.gold,
    )


def snapshot(row: Row[Any]) -> SnapshotRow:
    """A row of `snapshots`."""
    return SnapshotRow(
        row.digest, row.kind, row.train_records, row.heldout_records, row.created_us, row.filter, row.number
    )


def key_of(table: Table) -> str:
    """The column that holds the digest by which rows of `table` are named."""
    return {"prompts": "prompt_id", "completions": "completion_id", "feedback": "feedback_id"}[table.name]
