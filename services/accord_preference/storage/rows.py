"""The carriers of stores: rows, filters and counts. The parts of the service create them and stores keep them; see
store.py.

Rows are named tuples whose fields have the names of their columns. There may be millions of them, and a named tuple is
built and unpacked in a tenth of the time of a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

PROMPTS = 1
PREFERENCES = 2
# How a lease ended.
HELD, ANSWERED, SKIPPED, FLAGGED, CANCELLED = range(5)
# `superseded_by` of feedback that its annotator retracted.
RETRACTED = ""


class PromptRow(NamedTuple):
    """A prompt. `conversation`: canonical JSON of [[role, content], ...]; `split`: preference.v1.Split."""

    prompt_id: str
    conversation: str
    source: str
    split: int
    record_digest: str


class CompletionRow(NamedTuple):
    """A completion. `origin`: canonical JSON of the origin, or None; `finish_reason`: types.v1.FinishReason."""

    completion_id: str
    prompt_id: str
    text: str
    origin: str | None
    finish_reason: int = 0


class FeedbackRow(NamedTuple):
    """Feedback. `kind`: preference.v1.TaskKind; `judgement`: canonical JSON; `task_id`: None without a task.

    `label` is the source that filters and statistics use: the feedback's, else its prompt's. `created_us`:
    microseconds since 1970; `elapsed_us`: from lease to answer. `criteria`: canonical JSON of ratings, or "".
    `superseded_by`: None while it is active, RETRACTED, or the feedback that corrects it.
    """

    feedback_id: str
    prompt_id: str
    annotator_id: str
    annotator_kind: int
    kind: int
    judgement: str
    completion_ids: tuple[str, ...]
    task_id: str | None
    queue: str
    source: str
    label: str
    created_us: int
    late: bool
    split: int
    record_digest: str
    comment: str = ""
    criteria: str = ""
    supersedes: str | None = None
    superseded_by: str | None = None
    elapsed_us: int | None = None
    gold: bool = False


class TaskRow(NamedTuple):
    """A task. `kind`, `state`: preference.v1.TaskKind and TaskState.

    `gold`: canonical JSON of the known answer; `turn`: minus the priority; `form`: canonical JSON of criteria and
    instructions, or "".
    """

    task_id: str
    kind: int
    prompt_id: str
    completion_ids: tuple[str, ...]
    redundancy: int
    queue: str
    state: int
    answers: int = 0
    gold: str | None = None
    turn: int = 0
    form: str = ""
    flags: int = 0


class LeaseRow(NamedTuple):
    """A task reserved for an annotator until `expire_us` (microseconds since 1970), unless the lease `ended` earlier.
    `outcome`: how it ended (HELD, ANSWERED, ...)."""

    lease_id: str
    task_id: str
    annotator_id: str
    expire_us: int
    ended: bool = False
    annotator_kind: int = 0
    leased_us: int = 0
    outcome: int = HELD

    def is_active(self, now_us: int) -> bool:
        """Whether the task is reserved at `now_us`; `conditions.is_active` is the same in SQL."""
        return not self.ended and self.expire_us > now_us


class AnnotatorRow(NamedTuple):
    """An annotator. `kind`, `state`: preference.v1.AnnotatorKind and AnnotatorState."""

    annotator_id: str
    kind: int
    display_name: str
    state: int
    reason: str
    created_us: int
    state_us: int


class FlagRow(NamedTuple):
    """A flag on a task. `reason`: preference.v1.FlagReason; `number` grows with every flag."""

    task_id: str
    annotator_id: str
    annotator_kind: int
    reason: int
    comment: str
    created_us: int
    number: int = 0


@dataclass(frozen=True)
class Filter:
    """Selects records; empty fields do not filter. Fields other than split and sources apply to feedback only.

    Always left out: corrected and retracted feedback, feedback of annotators who are not active, and everything about
    deleted prompts.
    """

    sources: tuple[str, ...] = ()
    annotator_kinds: tuple[int, ...] = ()
    queues: tuple[str, ...] = ()
    split: int = 0
    include_gold: bool = False
    exclude_late: bool = False


@dataclass(frozen=True)
class History:
    """Selects feedback, active or not; empty fields do not filter. A queue ending in `/` includes all below it."""

    annotator: tuple[str, int] | None = None
    prompt_id: str = ""
    task_id: str = ""
    queue: str = ""


class JudgedRow(NamedTuple):
    """The parts of feedback that the quality report needs. `known`: canonical JSON of a gold task's known answer."""

    annotator_id: str
    annotator_kind: int
    kind: int
    judgement: str
    criteria: str
    created_us: int
    elapsed_us: int | None
    late: bool
    known: str | None


class SnapshotRow(NamedTuple):
    """A snapshot. `filter`: the serialised preference.v1.SnapshotFilter; `number` grows with every snapshot."""

    digest: str
    kind: int
    train_records: int
    heldout_records: int
    created_us: int
    filter: bytes
    number: int = 0


class RecordRow(NamedTuple):
    """One record of an export; the next page starts after `position`."""

    position: tuple[int | str, ...]
    prompt: PromptRow
    completions: tuple[CompletionRow, ...] = ()
    feedback: FeedbackRow | None = None


@dataclass(frozen=True)
class QueueCounts:
    """The progress of a queue."""

    open_tasks: int = 0
    done_tasks: int = 0
    cancelled_tasks: int = 0
    leased_tasks: int = 0
    feedback: int = 0
    flagged_tasks: int = 0
    gold_tasks: int = 0
    wanted_feedback: int = 0
    recent_feedback: int = 0


@dataclass(frozen=True)
class Stats:
    """Counts over everything. `feedback`: (label, split, annotator kind) -> count; `judgements`: TaskKind -> count."""

    prompts: int = 0
    completions: int = 0
    open_tasks: int = 0
    snapshots: int = 0
    judgements: Mapping[int, int] = field(default_factory=dict)
    feedback: Mapping[tuple[str, int, int], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Origins:
    """The origins of the records of a snapshot. Annotators: (id, kind) -> records; sources: label -> records;
    completions: canonical JSON of an origin without its seed (None: imported) -> distinct completions."""

    annotators: Mapping[tuple[str, int], int]
    sources: Mapping[str, int]
    completions: Mapping[str | None, int]
    prompts: int
