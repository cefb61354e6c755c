"""Imported, exported and counted records: errors by line, records of one form, statistics as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from accord.errors import FailedPrecondition, InvalidArgument, NotFound
from accord.formats.lines import at
from accord.formats.reading import ParsedFile
from accord.names import enum_name
from accord.preference import v1 as preference_v1
from accord.resources.preferences import Preferences

FORMS = {"comparison": "pairs", "ranking": "rankings", "rating": "ratings", None: "prompts"}
SPLITS = {"train": preference_v1.SPLIT_TRAIN, "heldout": preference_v1.SPLIT_HELDOUT}


async def records_of(
    service: Preferences, prompts: bool, sources: Sequence[str], split: str | None, snapshot: str
) -> AsyncIterator[preference_v1.Record]:
    """The records of a snapshot, or the current records."""
    side = SPLITS[split] if split else None
    if snapshot:
        async for record in service.export_snapshot(snapshot, split=side):
            yield record
        return
    kind = preference_v1.SNAPSHOT_KIND_PROMPTS if prompts else preference_v1.SNAPSHOT_KIND_PREFERENCES
    wanted = preference_v1.SnapshotFilter(sources=sources)
    async for record in service.export_records(kind, filter=wanted, split=side):
        yield record


def chosen(records: Sequence[preference_v1.ImportRecord], form: str | None) -> list[preference_v1.ImportRecord]:
    """The records of one form, since a file holds one. FailedPrecondition, SEVERAL_FORMS, if `form` is None and there
    are several."""
    counts = Counter(FORMS[record.WhichOneof("judgement")] for record in records)
    if form is None and len(counts) > 1:
        there = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        raise FailedPrecondition(f"There are {there}. Choose one with --form", reason="SEVERAL_FORMS")
    kept = [r for r in records if form is None or FORMS[r.WhichOneof("judgement")] == form]
    if not kept:
        raise NotFound(f"There are no {form or 'records'} to export", reason="NOTHING_TO_EXPORT")
    return kept


@contextmanager
def located(files: Sequence[ParsedFile]) -> Iterator[None]:
    """Turns a service's error about a record into an error about the record's line in the file."""
    try:
        yield
    except InvalidArgument as error:
        left = int(error.metadata.get("record", -1))
        for file in files:
            if 0 <= left < len(file.places):
                raise at(file.path, file.places[left], error.message) from error
            left -= len(file.places)
        raise


def stats_shape(stats: preference_v1.GetStatsResponse) -> dict[str, Any]:
    """`prompts, completions, comparisons, rankings, ratings, open_tasks, snapshots` and `feedback[]` of
    `source, split, annotator_kind, count`."""
    return {
        "prompts": stats.prompts,
        "completions": stats.completions,
        "comparisons": stats.comparisons,
        "rankings": stats.rankings,
        "ratings": stats.ratings,
        "open_tasks": stats.open_tasks,
        "snapshots": stats.snapshots,
        "feedback": [
            {
                "source": row.source,
                "split": enum_name(preference_v1.Split, row.split),
                "annotator_kind": enum_name(preference_v1.AnnotatorKind, row.annotator_kind),
                "count": row.count,
            }
            for row in stats.feedback
        ],
    }
