"""Reads a file as ImportRecords, all or none."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from accord.formats import texts
from accord.formats.layouts.layout import detect, layout_of
from accord.formats.lines import BadLine, at, number_of, shown, text_of
from accord.preference import v1 as preference_v1
from accord.types import v1 as types_v1

KINDS = {
    "human": preference_v1.ANNOTATOR_KIND_HUMAN,
    "simulated": preference_v1.ANNOTATOR_KIND_SIMULATED,
    "model": preference_v1.ANNOTATOR_KIND_MODEL,
}
COMMON = frozenset({"prompt", "source", "annotator", "annotator_kind", "comment", "criteria", "truncated"})


class Form(Enum):
    """The form of a file's lines; the same for all of them."""

    PAIRS = "pairs"
    RANKINGS = "rankings"
    RATINGS = "ratings"
    PROMPTS = "prompts"


REQUIRED = {
    Form.PAIRS: ("chosen", "rejected"),
    Form.RANKINGS: ("responses", "ranks"),
    Form.RATINGS: ("response", "rating"),
    Form.PROMPTS: ("prompt",),
}
OPTIONAL = {
    Form.PAIRS: ("margin", "tie"),
    Form.RANKINGS: (),
    Form.RATINGS: ("min", "max", "criterion"),
    Form.PROMPTS: (),
}


@dataclass(frozen=True)
class ParsedFile:
    """A complete file, read and checked."""

    path: Path
    form: Form
    records: list[preference_v1.ImportRecord]
    # Keys of no known form, with the number of lines that have them: they are not imported.
    ignored_keys: Counter[str] = field(default_factory=Counter)
    # The place of each record: its line, or its number in an array or a table, from 1.
    places: list[int] = field(default_factory=list)
    # The name of its layout, and the number of items without a judgement (in annotation tools: not done yet).
    format: str = "jsonl"
    empty_items: int = 0


def read(
    path: str | Path,
    *,
    source: str = "",
    annotator: str = "imported",
    annotator_kind: str = "human",
    format: str = "auto",
) -> ParsedFile:
    """The records of a file; its first line decides the form. The keyword arguments apply to lines that do not set
    these values; `format` is the name of a layout, or `auto` to detect it.

    NotFound if there is no such file; InvalidArgument, BAD_LINE, names file, line and problem: a line cut off, a
    missing key, a value of the wrong type, a line of another form. Nothing of such a file is returned.
    """
    path = Path(path)
    if annotator_kind not in KINDS:
        raise ValueError(f"annotator_kind must be one of {', '.join(KINDS)}, not {annotator_kind!r}")
    defaults = {"source": source, "annotator": annotator, "annotator_kind": annotator_kind}
    name = detect(path) if format == "auto" else format
    layout = layout_of(name)
    records: list[preference_v1.ImportRecord] = []
    places: list[int] = []
    ignored: Counter[str] = Counter()
    form: Form | None = None
    empty = 0
    for number, item in layout.items(path):
        try:
            lines = layout.lines(item)
            empty += not lines
            for line in lines:
                found = form_of(line)
                form = form or found
                if found is not form:
                    raise BadLine(f"a line of {found.value} in a file of {form.value}")
                ignored.update(line.keys() - COMMON - {*REQUIRED[form], *OPTIONAL[form]})
                records.append(record_of(defaults | line, form))
                places.append(number)
        except BadLine as error:
            raise at(path, number, error) from error
    if form is None:
        raise at(path, 1, f"none of its {empty} items has a judgement" if empty else "the file has no lines")
    return ParsedFile(path, form, records, ignored, places, name, empty)


def form_of(line: dict[str, Any]) -> Form:
    """The form of a line, by its keys. BadLine if a required key is missing."""
    for form, keys in REQUIRED.items():
        if any(key in line for key in keys):
            missing = [f"`{key}`" for key in keys if key not in line]
            if missing:
                has = next(key for key in keys if key in line)
                if form is Form.PAIRS:
                    raise BadLine(f"`{has}` without {' and '.join(missing)}: a preference pair needs both")
                raise BadLine(f"`{has}` without {' and '.join(missing)}: {form.value} need both")
            if "prompt" not in line and form is not Form.PAIRS:
                raise BadLine(f"`prompt` is missing; {form.value} need it")
            return form
    known = [", ".join(("prompt", *keys)) for form, keys in REQUIRED.items() if form is not Form.PROMPTS]
    expected = ", ".join(f"{{{keys}}}" for keys in ("prompt", *known))
    raise BadLine(f"unknown form of line; expected one of {expected}; found {', '.join(line) or 'no keys'}")


def record_of(line: dict[str, Any], form: Form) -> preference_v1.ImportRecord:
    """One line as a record. Raises BadLine with the problem."""
    if "prompt" not in line:
        line = texts.implicit_prompt(line)
    record = preference_v1.ImportRecord(prompt=texts.prompt_of(line), source=text_of(line, "source"))
    if form is Form.PROMPTS:
        return record
    if line["annotator_kind"] not in KINDS:
        raise BadLine(f"`annotator_kind` must be one of {', '.join(KINDS)}, not {shown(line['annotator_kind'])}")
    record.annotator.annotator_id = text_of(line, "annotator")
    if not record.annotator.annotator_id:
        raise BadLine("`annotator` is empty")
    record.annotator.kind = KINDS[line["annotator_kind"]]
    _JUDGEMENTS[form](line, record)
    _cut_off(line, record)
    if line.get("comment") is not None:
        record.comment = text_of(line, "comment")
    for index, rating in enumerate(line.get("criteria") or []):
        _criterion(rating, f"`criteria[{index}]`", record)
    return record


def _pair(line: dict[str, Any], record: preference_v1.ImportRecord) -> None:
    for key in ("chosen", "rejected"):
        record.completions.add(local_id=key, text=texts.answer_of(line[key], key, record.prompt))
    record.comparison.chosen_id, record.comparison.rejected_id = "chosen", "rejected"
    if "tie" in line:
        if not isinstance(line["tie"], bool):
            raise BadLine(f"`tie` must be true or false, not {shown(line['tie'])}")
        record.comparison.tie = line["tie"]
    if line.get("margin") is not None:
        record.comparison.margin = number_of(line, "margin")
        if record.comparison.margin < 0:
            raise BadLine(f"`margin` must be at least 0, not {shown(line['margin'])}")


def _ranking(line: dict[str, Any], record: preference_v1.ImportRecord) -> None:
    responses, ranks = line["responses"], line["ranks"]
    if not isinstance(responses, list) or len(responses) < 2:
        raise BadLine(f"`responses` must be a list of two or more, not {shown(responses)}")
    if not isinstance(ranks, list) or not all(type(rank) is int and rank >= 0 for rank in ranks):
        raise BadLine(f"`ranks` must be a list of whole numbers (0 is best), not {shown(ranks)}")
    if len(ranks) != len(responses):
        raise BadLine(f"has {len(responses)} `responses` but {len(ranks)} `ranks`")
    for index, response in enumerate(responses):
        text = texts.answer_of(response, f"responses[{index}]", record.prompt)
        record.completions.add(local_id=str(index), text=text)
    for rank in sorted(set(ranks)):
        record.ranking.ranks.add(completion_ids=[str(i) for i, value in enumerate(ranks) if value == rank])


def _rating(line: dict[str, Any], record: preference_v1.ImportRecord) -> None:
    record.completions.add(local_id="response", text=texts.answer_of(line["response"], "response", record.prompt))
    rating = record.rating
    rating.completion_id, rating.value = "response", number_of(line, "rating")
    if line.get("min") is not None:
        rating.min = number_of(line, "min")
    if line.get("max") is not None:
        rating.max = number_of(line, "max")
    if "criterion" in line:
        rating.criterion = text_of(line, "criterion")
    low, high = (rating.min if rating.HasField("min") else 0.0), (rating.max if rating.HasField("max") else 1.0)
    if not low < high or not low <= rating.value <= high:
        raise BadLine(f"`rating` {rating.value:g} is outside its scale, {low:g} to {high:g} (`min`, `max`)")


def _cut_off(line: dict[str, Any], record: preference_v1.ImportRecord) -> None:
    """Marks the answers that were cut off according to the line."""
    named = line.get("truncated") or []
    answers = {one.local_id: one for one in record.completions}
    if not isinstance(named, list) or not all(isinstance(name, str) and name in answers for name in named):
        raise BadLine(f"`truncated` must be a list of {', '.join(answers)}, not {shown(named)}")
    for name in named:
        answers[name].finish_reason = types_v1.FINISH_REASON_LENGTH


def _criterion(value: Any, where: str, record: preference_v1.ImportRecord) -> None:
    names = [one.local_id for one in record.completions]
    if not isinstance(value, dict) or not {"answer", "criterion", "value"} <= value.keys():
        raise BadLine(f"{where} must hold `answer`, `criterion` and `value`, not {shown(value)}")
    if value["answer"] not in names:
        raise BadLine(f"{where}: `answer` must be one of {', '.join(names)}, not {shown(value['answer'])}")
    rating = record.criteria.add(completion_id=value["answer"], value=number_of(value, "value"))
    rating.criterion = text_of(value, "criterion", where)
    for name in ("min", "max"):
        if value.get(name) is not None:
            setattr(rating, name, number_of(value, name))


_JUDGEMENTS = {Form.PAIRS: _pair, Form.RANKINGS: _ranking, Form.RATINGS: _rating}
