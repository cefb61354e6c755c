"""Ingest and export of preferences through the store and through the service: for benchmarks/preferences.py."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

from preference_service import HUMAN, Measured, service

from accord.preference import v1 as preference_v1
from accord.types import v1 as types_v1
from accord_preference import converters
from accord_preference.domain.judgement import read_judgement
from accord_preference.feedback.feedback_record import feedback_row, identified
from accord_preference.storage.opening import open_store
from accord_preference.storage.store import PREFERENCES, CompletionRow, FeedbackRow, Filter, PromptRow

WORDS = [
    *("the", "quick", "brown", "fox", "jumps", "over", "my", "lazy", "dog", "and"),
    *("then", "we", "talk", "about", "it", "for", "a", "while", "longer"),
]
# The batch sizes with which the service writes and reads.
CHUNK, PAGE = 2000, 1000
Rows = tuple[list[PromptRow], list[CompletionRow], list[FeedbackRow]]


def make_records(count: int, seed: int = 0) -> list[preference_v1.ImportRecord]:
    """Comparisons of two answers of 20 to 120 words to prompts of 10 to 40."""
    rng = random.Random(seed)

    def text(low: int, high: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))

    return [
        preference_v1.ImportRecord(
            prompt=types_v1.Conversation(
                messages=[types_v1.ChatMessage(role="user", content=f"{number} {text(10, 40)}")]
            ),
            completions=[preference_v1.ImportCompletion(local_id=name, text=text(20, 120)) for name in "ab"],
            comparison=preference_v1.Comparison(chosen_id="a", rejected_id="b"),
            annotator=preference_v1.Annotator(annotator_id=f"ann-{number % 50}", kind=HUMAN),
            source="benchmark",
        )
        for number in range(count)
    ]


def rows_of(records: list[preference_v1.ImportRecord]) -> Rows:
    """The rows that the service writes for these records."""
    found: Rows = ([], [], [])
    for record in records:
        prompt = converters.prompt_row(record.prompt, record.source, "", 0.1, "accord")
        answers = {one.local_id: converters.completion_row(prompt.prompt_id, one, "") for one in record.completions}
        judgement = read_judgement(record, "", lambda _, name, known=answers: known[name].completion_id)
        found[0].append(prompt)
        found[1].extend(answers.values())
        found[2].append(identified(feedback_row(judgement, record.annotator, prompt, record.source, 0)))
    return found


async def measure_store(url: str, moved: Rows, result: Measured) -> None:
    store = await open_store(url)
    try:
        started = time.perf_counter()
        async with store.writing() as tx:
            for start in range(0, result.records, CHUNK):
                await tx.add_prompts(moved[0][start : start + CHUNK])
                await tx.add_completions(moved[1][2 * start : 2 * (start + CHUNK)])
                await tx.add_feedback(moved[2][start : start + CHUNK])
        result.moved(result.ingest, "store", time.perf_counter() - started)
        started, seen = time.perf_counter(), 0
        async with store.reading() as tx:
            numbers = await tx.record_numbers(PREFERENCES, Filter())
            for start in range(0, len(numbers), PAGE):
                seen += len(await tx.records(PREFERENCES, numbers[start : start + PAGE]))
        assert seen == result.records
        result.moved(result.export, "store", time.perf_counter() - started)
    finally:
        await store.close()


async def measure_service(url: str, folder: Path, records: list[preference_v1.ImportRecord], result: Measured) -> None:
    async def stream() -> AsyncIterator[preference_v1.ImportRecordsRequest]:
        for start in range(0, len(records), 200):
            name = "benchmark" if start == 0 else ""
            yield preference_v1.ImportRecordsRequest(request_id=name, records=records[start : start + 200])

    async with service(url, folder) as stub:
        started = time.perf_counter()
        done = await stub.ImportRecords(stream(), timeout=3600)
        assert done.feedback == len(records)
        result.moved(result.ingest, "service", time.perf_counter() - started)
        request = preference_v1.CreateSnapshotRequest(
            request_id="snapshot", kind=preference_v1.SNAPSHOT_KIND_PREFERENCES
        )
        snapshot = (await stub.CreateSnapshot(request, timeout=3600)).snapshot
        started, seen = time.perf_counter(), 0
        async for page in stub.ExportSnapshot(
            preference_v1.ExportSnapshotRequest(digest=snapshot.digest), timeout=3600
        ):
            seen += len(page.records)
        assert seen == len(records)
        result.moved(result.export, "service", time.perf_counter() - started)
