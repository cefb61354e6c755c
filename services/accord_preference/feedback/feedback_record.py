"""The row in which feedback is stored, and the digests that identify it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accord.preference import v1 as preference_v1
from accord_preference.domain.canonical import (
    canonical_json,
    canonical_text,
    feedback_id,
    feedback_record_digest,
    members,
)
from accord_preference.domain.judgement import Judgement
from accord_preference.storage.store import FeedbackRow, PromptRow


def feedback_row(
    judgement: Judgement,
    annotator: preference_v1.Annotator,
    prompt: PromptRow,
    source: str,
    now_us: int,
    *,
    criteria: Sequence[dict[str, Any]] = (),
    comment: str = "",
    supersedes: str = "",
) -> FeedbackRow:
    """The row of a valid judgement given outside any task; `identified` adds its digests. `criteria`: canonical ratings
    (`read_criteria`); `supersedes`: "" unless it corrects other feedback."""
    return FeedbackRow(
        feedback_id="",
        prompt_id=prompt.prompt_id,
        annotator_id=annotator.annotator_id,
        annotator_kind=annotator.kind,
        kind=judgement.kind,
        judgement=canonical_json(judgement.value),
        completion_ids=judgement.completion_ids,
        task_id=None,
        queue="",
        source=source,
        label=source or prompt.source,
        created_us=now_us,
        late=False,
        split=prompt.split,
        record_digest="",
        comment=comment,
        criteria=canonical_json(criteria) if criteria else "",
        supersedes=supersedes or None,
    )


def identified(row: FeedbackRow) -> FeedbackRow:
    """The row with its id and its digest in snapshots; both follow from the rest of the row."""
    who = (row.annotator_id, row.annotator_kind)
    content = identity = ""
    if row.criteria or row.comment or row.supersedes:  # most of millions of imported rows have none
        comment = canonical_text(row.comment) if row.comment else ""
        corrects = canonical_text(row.supersedes) if row.supersedes else ""
        content = members(criteria=row.criteria, comment=comment)
        identity = members(criteria=row.criteria, comment=comment, supersedes=corrects)
    return row._replace(
        feedback_id=feedback_id(row.prompt_id, *who, row.judgement, row.task_id or "", identity),
        record_digest=feedback_record_digest(
            row.prompt_id, row.split, *who, row.judgement, row.source, row.late, content
        ),
    )
