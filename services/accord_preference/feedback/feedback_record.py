"""A judgement with who gave it, and the row that it is stored as."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from accord_preference.domain import canonical
from accord_preference.domain.judgement import Judgement
from accord_preference.storage.store import FeedbackRow, PromptRow


@dataclass(frozen=True)
class Verdict:
    """A valid judgement and who gave it; `task_id` "" without a task. `criteria`: canonical ratings."""

    annotator_id: str
    annotator_kind: int
    judgement: Judgement
    source: str
    task_id: str = ""
    queue: str = ""
    late: bool = False
    gold: bool = False
    elapsed_us: int | None = None
    criteria: list[dict[str, Any]] = field(default_factory=list)
    comment: str = ""
    supersedes: str = ""


def feedback_row(verdict: Verdict, prompt: PromptRow, now_us: int) -> FeedbackRow:
    """The row to store, with its id and the digest under which snapshots know it."""
    judgement = canonical.canonical_json(verdict.judgement.value)
    who = (verdict.annotator_id, verdict.annotator_kind)
    said = {"criteria": verdict.criteria, "comment": verdict.comment}
    said = {name: kept for name, kept in said.items() if kept}
    identity = said | ({"supersedes": verdict.supersedes} if verdict.supersedes else {})
    return FeedbackRow(
        feedback_id=canonical.feedback_id(prompt.prompt_id, *who, judgement, verdict.task_id, identity),
        prompt_id=prompt.prompt_id,
        annotator_id=verdict.annotator_id,
        annotator_kind=verdict.annotator_kind,
        kind=verdict.judgement.kind,
        judgement=judgement,
        completion_ids=verdict.judgement.completion_ids,
        task_id=verdict.task_id or None,
        queue=verdict.queue,
        source=verdict.source,
        label=verdict.source or prompt.source,
        created_us=now_us,
        late=verdict.late,
        split=prompt.split,
        record_digest=canonical.feedback_record_digest(
            prompt.prompt_id, prompt.split, *who, judgement, verdict.source, verdict.late, said
        ),
        comment=verdict.comment,
        criteria=canonical.canonical_json(verdict.criteria) if verdict.criteria else "",
        supersedes=verdict.supersedes or None,
        elapsed_us=verdict.elapsed_us,
        gold=verdict.gold,
    )
