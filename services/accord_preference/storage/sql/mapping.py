"""Converts between table rows and the seam's rows: a field is the column of the same name. Lists of ids are stored as
JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Row, Table

from accord_preference.domain.canonical import array, canonical_text, read_json
from accord_preference.storage.rows import (
    AnnotatorRow,
    CompletionRow,
    FeedbackRow,
    FlagRow,
    LeaseRow,
    PromptRow,
    SnapshotRow,
    TaskRow,
)
from accord_runtime.serving.idempotency import KeptResponse

AnyRow = (
    PromptRow | CompletionRow | FeedbackRow | TaskRow | LeaseRow | AnnotatorRow | FlagRow | SnapshotRow | KeptResponse
)
R = TypeVar(
    "R",
    PromptRow,
    CompletionRow,
    FeedbackRow,
    TaskRow,
    LeaseRow,
    AnnotatorRow,
    FlagRow,
    SnapshotRow,
    KeptResponse,
)
# The position of the list of ids among a row's fields, for kinds that have one.
_IDS: dict[type, int] = {kind: kind._fields.index("completion_ids") for kind in (TaskRow, FeedbackRow)}


def columns_of(table: Table, kind: type[AnyRow]) -> list[ColumnElement[Any]]:
    """The columns of `table` in the order of the fields of `kind`; `make` builds a row from their values."""
    return [table.c[name] for name in kind._fields]


def make(kind: type[R], found: Sequence[Any]) -> R:
    """The row with these values of the columns from `columns_of`."""
    ids: int = _IDS.get(kind, -1)
    if ids < 0:
        return kind._make(found)
    return kind._make((*found[:ids], tuple(read_json(found[ids])), *found[ids + 1 :]))


def read(kind: type[R], found: Row[Any]) -> R:
    """The row in a result that contains these columns among others."""
    return make(kind, [getattr(found, name) for name in kind._fields])


def columns(new: Sequence[AnyRow]) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
    """The names of the columns of rows of one kind, and the values of each row."""
    names, ids = new[0]._fields, _IDS.get(type(new[0]))
    rows: Sequence[Sequence[Any]] = new
    if ids is not None:
        rows = [(*row[:ids], array(*map(canonical_text, row[ids])), *row[ids + 1 :]) for row in rows]
    return names, rows


def values(row: AnyRow) -> dict[str, Any]:
    """The columns of one row by name, except `number`, which the database assigns."""
    names, (found,) = columns([row])
    return {name: value for name, value in zip(names, found, strict=True) if name != "number"}


def key_of(table: Table) -> str:
    """The column with the digest that identifies rows of `table`; for annotators, their id and kind."""
    return {
        "prompts": "prompt_id",
        "completions": "completion_id",
        "feedback": "feedback_id",
        "annotators": "annotator_id, kind",
    }[table.name]
