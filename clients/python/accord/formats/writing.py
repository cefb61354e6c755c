"""Writes records as JSONL lines; `read` returns the same records from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from accord import atomic
from accord.errors import InvalidArgument
from accord.formats import dialogue
from accord.names import enum_name
from accord.preference import v1 as preference_v1
from accord.types import v1 as types_v1

Style = Literal["text", "conversational"]


def from_record(record: preference_v1.Record) -> preference_v1.ImportRecord:
    """A stored record as one that can be imported elsewhere: its ids are replaced by ids within the record.

    Fields that an import cannot hold are left out: the weights that generated a completion, tasks, times. Of the finish
    reasons, only the one that matters for training is kept: which answers were cut off.
    """
    feedback = record.feedback
    which = feedback.WhichOneof("judgement")
    made = preference_v1.ImportRecord(prompt=record.prompt.conversation, source=feedback.source or record.prompt.source)
    if which is None:
        return made
    made.annotator.CopyFrom(feedback.annotator)
    answers = {completion.completion_id: completion for completion in record.completions}
    ids: dict[str, str] = {}

    def add(completion_id: str, local_id: str) -> str:
        if completion_id not in answers:
            raise InvalidArgument(
                f"feedback {feedback.feedback_id} judges completion {completion_id}, which its record does not contain"
            )
        ids[completion_id] = local_id
        answer = made.completions.add(local_id=local_id, text=answers[completion_id].text)
        if answers[completion_id].finish_reason == types_v1.FINISH_REASON_LENGTH:
            answer.finish_reason = types_v1.FINISH_REASON_LENGTH
        return local_id

    if which == "comparison":
        made.comparison.CopyFrom(feedback.comparison)
        made.comparison.chosen_id = add(feedback.comparison.chosen_id, "chosen")
        made.comparison.rejected_id = add(feedback.comparison.rejected_id, "rejected")
    elif which == "ranking":
        ranked = {completion_id for rank in feedback.ranking.ranks for completion_id in rank.completion_ids}
        order = [completion_id for completion_id in answers if completion_id in ranked]
        for index, completion_id in enumerate([*order, *sorted(ranked - set(order))]):
            add(completion_id, str(index))
        for rank in feedback.ranking.ranks:
            made.ranking.ranks.add(completion_ids=sorted((ids[i] for i in rank.completion_ids), key=int))
    else:
        made.rating.CopyFrom(feedback.rating)
        made.rating.completion_id = add(feedback.rating.completion_id, "response")
    made.comment = feedback.comment
    for rating in feedback.criteria:
        made.criteria.add().CopyFrom(rating)
        made.criteria[-1].completion_id = ids[rating.completion_id]
    return made


def to_line(record: preference_v1.ImportRecord, *, style: Style = "text") -> str:
    """`line_of` as JSON, without the line end."""
    return json.dumps(line_of(record, style=style), ensure_ascii=False)


def line_of(record: preference_v1.ImportRecord, *, style: Style = "text") -> dict[str, Any]:
    """A record as the values of a line. `text`: prompts as texts if that is exact, else as messages; `conversational`:
    TRL's form throughout. InvalidArgument for a record with completions but no judgement of them."""
    which = record.WhichOneof("judgement")
    line: dict[str, Any] = {"prompt": _prompt(record.prompt, style)}
    text = {completion.local_id: _answer(completion.text, style) for completion in record.completions}
    if which == "comparison":
        _compared(line, record.comparison, text)
    elif which == "ranking":
        rank_of = {i: rank for rank, ids in enumerate(record.ranking.ranks) for i in ids.completion_ids}
        line |= {"responses": list(text.values()), "ranks": [rank_of[i] for i in text]}
    elif which == "rating":
        _rated(line, record.rating, text)
    elif text:
        raise InvalidArgument("a record with answers but no judgement of them cannot be written to a file")
    cut_off = [one.local_id for one in record.completions if one.finish_reason == types_v1.FINISH_REASON_LENGTH]
    if cut_off:
        line["truncated"] = cut_off
    if which is not None:
        line["annotator"] = record.annotator.annotator_id
        line["annotator_kind"] = enum_name(preference_v1.AnnotatorKind, record.annotator.kind)
        if record.comment:
            line["comment"] = record.comment
        if record.criteria:
            line["criteria"] = [_criterion(rating) for rating in record.criteria]
    line["source"] = record.source
    return line


def write(path: str | Path, records: Iterable[preference_v1.ImportRecord], *, style: Style = "text") -> int:
    """Writes a JSONL file, completely or not at all, and returns the number of lines."""
    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for record in records:
            yield to_line(record, style=style)
            count += 1

    write_lines(Path(path), lines())
    return count


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes a file of these lines, completely or not at all."""
    with atomic.file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(line + "\n")


def _prompt(prompt: types_v1.Conversation, style: Style) -> Any:
    turns = list(prompt.messages)
    if style == "text":
        if len(turns) == 1 and turns[0].role == "user" and not dialogue.is_dialogue(turns[0].content):
            if turns[0].content.strip():
                return turns[0].content
        elif (text := dialogue.render(turns)) is not None:
            return text
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _answer(text: str, style: Style) -> Any:
    return text if style == "text" else [{"role": "assistant", "content": text}]


def _compared(line: dict[str, Any], comparison: preference_v1.Comparison, text: dict[str, Any]) -> None:
    line |= {"chosen": text[comparison.chosen_id], "rejected": text[comparison.rejected_id]}
    if comparison.tie:
        line["tie"] = True
    if comparison.HasField("margin"):
        line["margin"] = comparison.margin


def _criterion(rating: preference_v1.Rating) -> dict[str, Any]:
    found: dict[str, Any] = {"answer": rating.completion_id, "criterion": rating.criterion, "value": rating.value}
    return found | {name: getattr(rating, name) for name in ("min", "max") if rating.HasField(name)}


def _rated(line: dict[str, Any], rating: preference_v1.Rating, text: dict[str, Any]) -> None:
    line |= {"response": text[rating.completion_id], "rating": rating.value}
    for name in ("min", "max"):
        if rating.HasField(name):
            line[name] = getattr(rating, name)
    if rating.criterion:
        line["criterion"] = rating.criterion
