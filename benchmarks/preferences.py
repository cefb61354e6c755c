"""What the preference service costs beside its database: ingest and export against bare COPY or executemany, and how
long annotators wait for a task.

    python benchmarks/preferences.py [--records 20000] [--comparisons 100000] [--annotators 1000] [--seconds 60]
                                     [--think 20] [--database URL ...] [--part ingest] [--part leases] [--json FILE]

Without --database a new SQLite file and a new PostgreSQL (from the package that the tests use, durable: fsync on) are
measured, one after the other. A database that is named must be empty.

Ingest and export move the same records three ways: `bare`, the rows that the service would write, by COPY (PostgreSQL)
or executemany (SQLite) into the same tables with the same indexes, and back by COPY or SELECT in the same order;
`store`, through the seam (`accord_preference.store`), which skips what exists and pages; `service`, ImportRecords and
ExportSnapshot of a service process, which checks, hashes and moves messages besides. Ratios are to bare.

Leases: `--comparisons` open tasks, ten of each prompt's five answers; `--annotators` people who lease, think for
`--think` seconds on average (exponentially distributed), answer, and lease again, for `--seconds`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.bare_database import bare_database  # noqa: E402
from tests.support.postgres import running  # noqa: E402

from accord.channel import open_channel  # noqa: E402
from accord.errors import AccordError  # noqa: E402
from accord.preference import v1 as preference_v1  # noqa: E402
from accord.types import v1 as types_v1  # noqa: E402
from accord_preference import canonical, messages, tables  # noqa: E402
from accord_preference.judgement import read_judgement  # noqa: E402
from accord_preference.judging import Verdict, feedback_row  # noqa: E402
from accord_preference.store import (  # noqa: E402
    PREFERENCES,
    CompletionRow,
    FeedbackRow,
    Filter,
    PromptRow,
    TaskRow,
    Writer,
)
from accord_preference.stores import open_store, rows  # noqa: E402

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "my",
    "lazy",
    "dog",
    "and",
    "then",
    "we",
    "talk",
    "about",
    "it",
    "for",
    "a",
    "while",
    "longer",
]
HUMAN = preference_v1.ANNOTATOR_KIND_HUMAN
CHUNK = 500
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "256MB"}
T = TypeVar("T")
Rows = tuple[list[PromptRow], list[CompletionRow], list[FeedbackRow]]


@dataclass
class Measured:
    """Of one database; rates in records a second, latencies in milliseconds."""

    database: str
    records: int = 0
    ingest: dict[str, float] = field(default_factory=dict)
    export: dict[str, float] = field(default_factory=dict)
    comparisons: int = 0
    annotators: int = 0
    leases: int = 0
    leases_a_second: float = 0.0
    lease_ms: dict[str, float] = field(default_factory=dict)
    answer_ms: dict[str, float] = field(default_factory=dict)
    # Calls that ended in an error, for instance because too many waited for the database.
    failed: int = 0


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
    """What the service writes for these records."""
    found: Rows = ([], [], [])
    for record in records:
        prompt = messages.prompt_row(record.prompt, record.source, "", 0.1, "accord")
        answers = {
            one.local_id: messages.completion_row(prompt.prompt_id, one.text, preference_v1.CompletionOrigin())
            for one in record.completions
        }
        judgement = read_judgement(record, "", lambda _, name, known=answers: known[name].completion_id)
        verdict = Verdict(record.annotator.annotator_id, HUMAN, judgement, record.source)
        found[0].append(prompt)
        found[1].extend(answers.values())
        found[2].append(feedback_row(verdict, prompt, 0))
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
        result.ingest["store"] = result.records / (time.perf_counter() - started)
        started, seen = time.perf_counter(), 0
        after: tuple[int | str, ...] = ()
        async with store.reading() as tx:
            newest = await tx.newest(PREFERENCES)
            while page := await tx.record_page(PREFERENCES, Filter(), newest, after, 1000):
                seen, after = seen + len(page), page[-1].position
        assert seen == result.records
        result.export["store"] = result.records / (time.perf_counter() - started)
    finally:
        await store.close()


@asynccontextmanager
async def service(url: str, folder: Path) -> AsyncIterator[preference_v1.PreferenceServiceAsyncStub]:
    """A service process on `url`."""
    command = [sys.executable, "-m", "accord_preference", "--state-dir", str(folder), "--database-url", url]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        async with open_channel(line.split()[-1]) as channel:
            yield preference_v1.PreferenceServiceStub(channel)
    finally:
        process.terminate()
        await process.wait()


async def measure_service(url: str, folder: Path, records: list[preference_v1.ImportRecord], result: Measured) -> None:
    async def stream() -> AsyncIterator[preference_v1.ImportRecordsRequest]:
        for start in range(0, len(records), 200):
            name = "benchmark" if start == 0 else ""
            yield preference_v1.ImportRecordsRequest(request_id=name, records=records[start : start + 200])

    async with service(url, folder) as stub:
        started = time.perf_counter()
        done = await stub.ImportRecords(stream(), timeout=3600)
        result.ingest["service"] = done.feedback / (time.perf_counter() - started)
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
        result.export["service"] = seen / (time.perf_counter() - started)


async def fill(tx: Writer, comparisons: int) -> None:
    """Open tasks: ten comparisons of the five answers of each prompt."""
    for first in range(0, comparisons, 10 * 100):
        prompts, answers, tasks = [], [], []
        for number in range(first, min(first + 1000, comparisons), 10):
            value = [["user", f"question {number}"]]
            name = canonical.prompt_id(value)
            digest = canonical.prompt_record_digest(name, 1)
            prompts.append(PromptRow(name, canonical.canonical_json(value), "benchmark", 1, digest))
            texts = [f"answer {place} to question {number}" for place in range(5)]
            mine = [CompletionRow(canonical.completion_id(name, text, None), name, text, None) for text in texts]
            answers += mine
            for place, pair in enumerate(itertools.combinations([one.completion_id for one in mine], 2)):
                task = canonical.digest("task", [number, place])
                tasks.append(TaskRow(task, preference_v1.TASK_KIND_COMPARISON, name, pair, 1, "work", 1))
        await tx.add_prompts(prompts)
        await tx.add_completions(answers)
        await tx.add_tasks(tasks)


async def measure_leases(url: str, folder: Path, arguments: argparse.Namespace, result: Measured) -> None:
    store = await open_store(url)
    async with store.writing() as tx:
        await fill(tx, arguments.comparisons)
    await store.close()
    leased: list[float] = []
    answered: list[float] = []

    async def timed(call: Awaitable[T], into: list[float]) -> T:
        started = time.perf_counter()
        response = await call
        into.append(1000 * (time.perf_counter() - started))
        return response

    stop = asyncio.Event()

    async def over(seconds: float) -> bool:
        """Waits; True where the time of the measurement ended meanwhile. Calls in work are waited for and counted."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
        return stop.is_set()

    async def annotate(stub: preference_v1.PreferenceServiceAsyncStub, number: int) -> None:
        rng = random.Random(number)
        who = preference_v1.Annotator(annotator_id=f"ann-{number}", kind=HUMAN)
        if await over(rng.uniform(0, arguments.think)):
            return
        for turn in itertools.count():
            request = preference_v1.LeaseTaskRequest(request_id=f"l-{number}-{turn}", annotator=who, queue="work")
            try:
                lease = (await timed(stub.LeaseTask(request, timeout=120), leased)).lease
                if await over(rng.expovariate(1 / arguments.think) if arguments.think else 0.001):
                    return
                ids = lease.task.completion_ids
                feedback = preference_v1.Feedback(
                    prompt_id=lease.prompt.prompt_id,
                    annotator=who,
                    comparison=preference_v1.Comparison(chosen_id=ids[0], rejected_id=ids[1]),
                    task_id=lease.task.task_id,
                )
                answer = preference_v1.SubmitFeedbackRequest(
                    request_id=f"s-{number}-{turn}", feedback=feedback, lease_id=lease.lease_id
                )
                await timed(stub.SubmitFeedback(answer, timeout=120), answered)
            except AccordError:
                result.failed += 1
            if stop.is_set():
                return

    async with service(url, folder) as stub:
        started = time.perf_counter()
        asyncio.get_running_loop().call_later(arguments.seconds, stop.set)
        await asyncio.gather(*(annotate(stub, number) for number in range(arguments.annotators)))
        result.leases_a_second = len(leased) / (time.perf_counter() - started)
    result.comparisons, result.annotators, result.leases = arguments.comparisons, arguments.annotators, len(leased)
    result.lease_ms, result.answer_ms = percentiles(leased), percentiles(answered)


def percentiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98]}


def databases(arguments: argparse.Namespace, stack: ExitStack, folder: Path) -> Iterator[tuple[str, Iterator[str]]]:
    """(kind, URLs of empty places of it)."""
    if arguments.database:
        for url in arguments.database:
            yield url.partition(":")[0].partition("+")[0], iter([url])
        return
    yield "sqlite", (f"sqlite:///{folder}/{number}.db" for number in itertools.count())
    server = stack.enter_context(running(**DURABLE))
    yield "postgresql", iter(server.fresh, None)


def show(found: list[Measured]) -> None:
    console = Console()
    if any(one.ingest for one in found):
        table = Table("database", "way", "ingest, records/s", "ratio", "export, records/s", "ratio")
        for one in found:
            for way in one.ingest:
                cells = [f"{rates[way]:,.0f}" for rates in (one.ingest, one.export)]
                ratios = [f"{rates[way] / rates['bare']:.2f}" for rates in (one.ingest, one.export)]
                table.add_row(one.database, way, cells[0], ratios[0], cells[1], ratios[1])
        console.print(table)
    if any(one.leases for one in found):
        table = Table(
            "database", "comparisons", "annotators", "leases/s", "lease p50, p99 ms", "answer p50, p99 ms", "failed"
        )
        for one in found:
            times = [f"{kind['p50']:.1f}, {kind['p99']:.1f}" for kind in (one.lease_ms, one.answer_ms)]
            table.add_row(
                one.database,
                f"{one.comparisons:,}",
                f"{one.annotators:,}",
                f"{one.leases_a_second:.1f}",
                *times,
                f"{one.failed}",
            )
        console.print(table)


async def measure(kind: str, urls: Iterator[str], folder: Path, arguments: argparse.Namespace) -> Measured:
    result = Measured(kind)
    if "ingest" in arguments.part:
        records = make_records(arguments.records)
        result.records = len(records)
        moved = rows_of(records)
        bare = bare_database(kind)
        url = next(urls)
        await (await open_store(url)).close()
        named = [
            (table, [rows.values(row) for row in part])
            for table, part in zip((tables.prompts, tables.completions, tables.feedback), moved, strict=True)
        ]
        result.ingest["bare"] = result.records / bare.ingest(url, named)
        result.export["bare"] = result.records / bare.export(url)
        await measure_store(next(urls), moved, result)
        await measure_service(next(urls), folder / kind, records, result)
    if "leases" in arguments.part:
        await measure_leases(next(urls), folder / kind, arguments, result)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--comparisons", type=int, default=100_000)
    parser.add_argument("--annotators", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--think", type=float, default=20)
    parser.add_argument("--part", action="append", choices=["ingest", "leases"], help="both when not given")
    parser.add_argument(
        "--database", action="append", default=[], help="URL of an empty database; with one --part=leases"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.part = arguments.part or ["ingest", "leases"]
    if arguments.database and "ingest" in arguments.part:
        parser.error("ingest needs three empty databases; with --database only --part leases")
    found = []
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="accord-bench-") as name:
        for kind, urls in databases(arguments, stack, Path(name)):
            found.append(asyncio.run(measure(kind, urls, Path(name), arguments)))
    show(found)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
