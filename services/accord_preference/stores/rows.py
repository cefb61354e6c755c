"""Rows of tables <-> the carriers of the seam."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Row, Table

from accord_preference.store import CompletionRow, FeedbackRow, LeaseRow, PromptRow, SnapshotRow, TaskRow


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
    return CompletionRow(row.completion_id, row.prompt_id, row.text, row.origin)


def task(row: Row[Any]) -> TaskRow:
    """A row of `tasks`."""
    ids = tuple(json.loads(row.completion_ids))
    return TaskRow(row.task_id, row.kind, row.prompt_id, ids, row.redundancy, row.queue, row.state, row.answers)


def lease(row: Row[Any]) -> LeaseRow:
    """A row of `leases`."""
    return LeaseRow(row.lease_id, row.task_id, row.annotator_id, row.expire_us, row.ended)


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
    )


def snapshot(row: Row[Any]) -> SnapshotRow:
    """A row of `snapshots`."""
    return SnapshotRow(
        row.digest, row.kind, row.train_records, row.heldout_records, row.created_us, row.filter, row.number
    )


def key_of(table: Table) -> str:
    """The column that holds the digest by which rows of `table` are named."""
    return {"prompts": "prompt_id", "completions": "completion_id", "feedback": "feedback_id"}[table.name]
