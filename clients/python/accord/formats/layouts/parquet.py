"""Parquet, a row per judgement, prompts and answers as lists of messages; `datasets.load_dataset("parquet")` reads it.

The columns are the keys of the form's lines (accord.formats); keys that a row does not have are null.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from accord import atomic
from accord.errors import FailedPrecondition, InvalidArgument
from accord.formats.layouts.layout import Head
from accord.formats.lines import at, open_file
from accord.formats.writing import line_of
from accord.preference import v1 as preference_v1

ROWS = 5000


class ParquetLayout:
    """A table; needs pyarrow."""

    suffix = ".parquet"

    def recognizes(self, head: Head) -> bool:
        return head.data.startswith(b"PAR1")

    def items(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        arrow = _arrow()
        open_file(path).close()
        number = 0
        try:
            with arrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(ROWS):
                    for row in batch.to_pylist():
                        number += 1
                        yield number, {key: value for key, value in row.items() if value is not None}
        except (arrow.ArrowException, OSError) as error:
            raise at(path, number + 1, f"not a complete Parquet file: {error}") from error

    def lines(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        return [item]

    def write(self, path: Path, records: Iterable[preference_v1.ImportRecord]) -> int:
        arrow = _arrow()
        rows, count = (line_of(record, style="conversational") for record in records), 0
        writer = None
        with atomic.file(path) as temporary:
            try:
                while chunk := list(islice(rows, ROWS)):
                    schema = _schema(arrow, chunk[0])
                    writer = writer or arrow.parquet.ParquetWriter(temporary, schema)
                    writer.write_table(arrow.Table.from_pylist(chunk, schema=schema))
                    count += len(chunk)
            finally:
                if writer is not None:
                    writer.close()
            if writer is None:
                raise InvalidArgument("There is nothing to write", reason="NOTHING_TO_EXPORT")
        return count


def _schema(arrow: Any, line: dict[str, Any]) -> Any:
    """The columns of the form of this line."""
    messages = arrow.list_(arrow.struct([("role", arrow.string()), ("content", arrow.string())]))
    number, text = arrow.float64(), arrow.string()
    columns = {"prompt": messages}
    if "chosen" in line:
        columns |= {"chosen": messages, "rejected": messages, "tie": arrow.bool_(), "margin": number}
    elif "responses" in line:
        columns |= {"responses": arrow.list_(messages), "ranks": arrow.list_(arrow.int64())}
    elif "response" in line:
        columns |= {"response": messages, "rating": number, "min": number, "max": number, "criterion": text}
    if "annotator" in line:
        rating = {"answer": text, "criterion": text, "value": number, "min": number, "max": number}
        columns |= {"annotator": text, "annotator_kind": text, "comment": text, "truncated": arrow.list_(text)}
        columns |= {"criteria": arrow.list_(arrow.struct(list(rating.items())))}
    return arrow.schema([*columns.items(), ("source", text)])


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            "Parquet needs pyarrow: pip install 'accord-rlhf[parquet]'", reason="NOT_INSTALLED"
        ) from error
    return pyarrow
