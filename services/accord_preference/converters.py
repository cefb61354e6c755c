"""Rows of the store <-> messages of the contract."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from accord.conversations import ROLES
from accord.errors import InvalidArgument
from accord.preference import v1 as preference_v1
from accord.types import v1 as types_v1
from accord_preference.domain import canonical
from accord_preference.domain.judgement import write_judgement
from accord_preference.storage.store import (
    RETRACTED,
    AnnotatorRow,
    CompletionRow,
    FeedbackRow,
    Filter,
    FlagRow,
    LeaseRow,
    Origins,
    PromptRow,
    RecordRow,
    SnapshotRow,
    TaskRow,
)

K = TypeVar("K", str, tuple[str, int])
_ENDS = frozenset(types_v1.FinishReason.values())


def timestamp(microseconds: int) -> Timestamp:
    """A point in time, microseconds since 1970."""
    return Timestamp(seconds=microseconds // 1_000_000, nanos=microseconds % 1_000_000 * 1000)


def prompt_row(
    conversation: types_v1.Conversation, source: str, path: str, heldout_fraction: float, salt: str
) -> PromptRow:
    """A new prompt. InvalidArgument, for a field below `path`, if there are no turns or a role is unknown."""
    if not conversation.messages:
        raise InvalidArgument.at(f"{path}.messages", "must not be empty")
    for index, message in enumerate(conversation.messages):
        if message.role not in ROLES:
            raise InvalidArgument.at(
                f"{path}.messages[{index}].role", f"is {message.role!r}; must be one of {', '.join(ROLES)}"
            )
    kept = canonical.conversation_json(conversation)
    name = canonical.prompt_id(kept)
    split = canonical.split_of(name, heldout_fraction, salt)
    return PromptRow(name, kept, source, split, canonical.prompt_record_digest(name, split))


def completion_row(
    prompt_id: str, answer: preference_v1.Completion | preference_v1.ImportCompletion, path: str
) -> CompletionRow:
    """A new completion; an imported one has no origin. InvalidArgument, for a field below `path`, if the finish reason
    does not exist."""
    value = canonical.origin_value(answer.origin) if isinstance(answer, preference_v1.Completion) else None
    if answer.finish_reason not in _ENDS:
        raise InvalidArgument.at(
            f"{path}.finish_reason", f"is {answer.finish_reason}; leave it unset if it is not known"
        )
    kept = None if value is None else canonical.canonical_json(value)
    text = answer.text  # each access to a message field makes a copy
    name = canonical.completion_id(prompt_id, text, kept, answer.finish_reason)
    return CompletionRow(name, prompt_id, text, kept, answer.finish_reason)


def prompt(row: PromptRow) -> preference_v1.Prompt:
    """A prompt as a message."""
    message = preference_v1.Prompt()
    _put_prompt(message, row)
    return message


def _put_prompt(message: preference_v1.Prompt, row: PromptRow) -> None:
    message.prompt_id, message.source = row.prompt_id, row.source
    message.split = preference_v1.Split.ValueType(row.split)
    for role, content in canonical.read_json(row.conversation):
        message.conversation.messages.add(role=role, content=content)


def completion(row: CompletionRow) -> preference_v1.Completion:
    """A completion as a message."""
    message = preference_v1.Completion()
    _put_completion(message, row)
    return message


def _put_completion(message: preference_v1.Completion, row: CompletionRow) -> None:
    message.completion_id, message.prompt_id, message.text = row.completion_id, row.prompt_id, row.text
    if row.finish_reason:
        message.finish_reason = types_v1.FinishReason.ValueType(row.finish_reason)
    if row.origin is not None:
        message.origin.CopyFrom(preference_v1.CompletionOrigin(**canonical.read_json(row.origin)))


def duration(microseconds: int) -> Duration:
    """A duration; 0 if negative."""
    kept = max(0, microseconds)
    return Duration(seconds=kept // 1_000_000, nanos=kept % 1_000_000 * 1000)


def feedback(row: FeedbackRow) -> preference_v1.Feedback:
    """Feedback as a message, with its later correction or retraction."""
    message = preference_v1.Feedback()
    _put_feedback(message, row)
    message.superseded_by = row.superseded_by or ""
    message.retracted = row.superseded_by == RETRACTED
    return message


def _put_feedback(message: preference_v1.Feedback, row: FeedbackRow) -> None:
    """Fills in the message. Empty fields stay unset; in millions of records, most fields are empty."""
    message.feedback_id, message.prompt_id, message.source = row.feedback_id, row.prompt_id, row.source
    annotator, created = message.annotator, message.create_time
    annotator.annotator_id = row.annotator_id
    annotator.kind = preference_v1.AnnotatorKind.ValueType(row.annotator_kind)
    created.seconds, microseconds = divmod(row.created_us, 1_000_000)
    created.nanos = microseconds * 1000
    if row.task_id is not None:
        message.task_id = row.task_id
    if row.late:
        message.late = True
    if row.comment:
        message.comment = row.comment
    if row.supersedes is not None:
        message.supersedes = row.supersedes
    if row.elapsed_us is not None:
        message.elapsed.CopyFrom(duration(row.elapsed_us))
    for rating in canonical.read_json(row.criteria) if row.criteria else ():
        message.criteria.add(**rating)
    write_judgement(row.kind, canonical.read_json(row.judgement), message)


def task(row: TaskRow) -> preference_v1.Task:
    """A task as annotators may see it; it does not reveal whether it is a gold task."""
    form = json.loads(row.form or "{}")
    return preference_v1.Task(
        task_id=row.task_id,
        kind=preference_v1.TaskKind.ValueType(row.kind),
        prompt_id=row.prompt_id,
        completion_ids=row.completion_ids,
        redundancy=row.redundancy,
        queue=row.queue,
        state=preference_v1.TaskState.ValueType(row.state),
        answers=row.answers if row.gold is None else row.answers % row.redundancy,
        priority=-row.turn,
        criteria=[preference_v1.Criterion(**value) for value in form.get("criteria", ())],
        instructions=form.get("instructions", ""),
        flags=row.flags,
    )


def whole_task(row: TaskRow) -> preference_v1.Task:
    """A task as its creator may see it, with its known answer."""
    message = task(row)
    message.answers = row.answers
    if row.gold is not None:
        known = json.loads(row.gold)
        write_judgement(row.kind, known["value"], message.gold)
        if known["tolerance"] is not None:
            message.gold.tolerance = known["tolerance"]
    return message


def flag(row: FlagRow, about: TaskRow) -> preference_v1.Flag:
    """A flag as a message."""
    return preference_v1.Flag(
        task_id=row.task_id,
        annotator=annotator(row.annotator_id, row.annotator_kind),
        reason=preference_v1.FlagReason.ValueType(row.reason),
        comment=row.comment,
        create_time=timestamp(row.created_us),
        task=task(about),
    )


def annotator(name: str, kind: int) -> preference_v1.Annotator:
    """An annotator as a message."""
    return preference_v1.Annotator(annotator_id=name, kind=preference_v1.AnnotatorKind.ValueType(kind))


def profile(row: AnnotatorRow, count: int) -> preference_v1.AnnotatorProfile:
    """An annotator and the number of their active judgements."""
    return preference_v1.AnnotatorProfile(
        annotator=annotator(row.annotator_id, row.kind),
        display_name=row.display_name,
        state=preference_v1.AnnotatorState.ValueType(row.state),
        reason=row.reason,
        create_time=timestamp(row.created_us),
        state_time=timestamp(row.state_us),
        feedback=count,
    )


def task_lease(
    row: TaskRow, about: PromptRow, answers: dict[str, CompletionRow], lease: LeaseRow, now_us: int
) -> preference_v1.TaskLease:
    """A leased task with everything that its annotator needs."""
    return preference_v1.TaskLease(
        task=task(row),
        prompt=prompt(about),
        completions=[completion(answers[name]) for name in row.completion_ids],
        lease_id=lease.lease_id,
        expire_time=timestamp(lease.expire_us),
        remaining=duration(lease.expire_us - now_us),
    )


def put_record(message: preference_v1.Record, row: RecordRow) -> None:
    """Fills in a record of an export, as it was submitted. Works in place within the response, because copying all
    texts would double the cost."""
    _put_prompt(message.prompt, row.prompt)
    for answer in row.completions:
        _put_completion(message.completions.add(), answer)
    if row.feedback is not None:
        _put_feedback(message.feedback, row.feedback)


def snapshot(row: SnapshotRow) -> preference_v1.Snapshot:
    """A snapshot as a message."""
    message = preference_v1.Snapshot(
        digest=row.digest,
        kind=preference_v1.SnapshotKind.ValueType(row.kind),
        train_records=row.train_records,
        heldout_records=row.heldout_records,
        create_time=timestamp(row.created_us),
    )
    message.filter.ParseFromString(row.filter)
    return message


def snapshot_use(row: SnapshotRow, records: int) -> preference_v1.SnapshotUse:
    """A snapshot and the number of its records that match."""
    return preference_v1.SnapshotUse(snapshot=snapshot(row), records=records)


def origins(row: SnapshotRow, found: Origins) -> preference_v1.GetSnapshotOriginsResponse:
    """The origins of a snapshot's records, the most frequent first."""
    return preference_v1.GetSnapshotOriginsResponse(
        snapshot=snapshot(row),
        annotators=[
            preference_v1.AnnotatorRecords(annotator=annotator(*who), records=count)
            for who, count in _most_first(found.annotators)
        ],
        sources=[
            preference_v1.SourceRecords(source=source, records=count) for source, count in _most_first(found.sources)
        ],
        completions=[
            preference_v1.CompletionSource(
                origin=None if origin is None else preference_v1.CompletionOrigin(**json.loads(origin)),
                completions=count,
            )
            for origin, count in sorted(found.completions.items(), key=lambda item: (-item[1], item[0] or ""))
        ],
        prompts=found.prompts,
    )


def _most_first(counts: Mapping[K, int]) -> list[tuple[K, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def filter_of(kind: int, message: preference_v1.SnapshotFilter, split: int = 0) -> Filter:
    """The filter of a request. InvalidArgument for an unset kind, or for a filter that does not apply to prompts."""
    if kind not in (preference_v1.SNAPSHOT_KIND_PROMPTS, preference_v1.SNAPSHOT_KIND_PREFERENCES):
        raise InvalidArgument.at("kind", "must be SNAPSHOT_KIND_PROMPTS or SNAPSHOT_KIND_PREFERENCES")
    if kind == preference_v1.SNAPSHOT_KIND_PROMPTS:
        for field in ("annotator_kinds", "queues", "include_gold", "exclude_late"):
            if getattr(message, field):
                raise InvalidArgument.at(f"filter.{field}", "applies only to feedback, not to prompts. Leave it empty")
    return Filter(
        sources=tuple(message.sources),
        annotator_kinds=tuple(message.annotator_kinds),
        queues=tuple(message.queues),
        split=split,
        include_gold=message.include_gold,
        exclude_late=message.exclude_late,
    )
