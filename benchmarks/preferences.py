"""The cost of the preference service relative to its database: ingest and export compared with bare COPY or
executemany, and how long annotators wait for a task.

    python benchmarks/preferences.py [--records 20000] [--rounds 3] [--comparisons 100000] [--annotators 1000]
                                     [--seconds 60] [--think 20] [--database URL ...] [--part ingest] [--part leases]
                                     [--json FILE]

Without --database a new SQLite file and a new PostgreSQL (from the package that the tests use, durable: fsync on) are
measured, one after the other. A named database must be empty.

Ingest and export move the same records three ways: `bare`, the rows that the service would write, by COPY (PostgreSQL)
or executemany (SQLite) into the same tables with the same indexes, and back by COPY or SELECT in the same order;
`store`, through the seam (accord_preference.storage), which skips existing records and pages; `service`, ImportRecords
and ExportSnapshot of a service process, which also checks, hashes and moves messages. Ratios are to bare, of the best
of `--rounds` alternating rounds.

Leases: `--comparisons` open tasks, ten of each prompt's five answers; `--annotators` people who lease, think for
`--think` seconds on average (exponentially distributed), answer, and lease again, for `--seconds`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from bare_database import bare_database
from preference_leasing import measure_leases
from preference_moving import make_records, measure_service, measure_store, rows_of
from preference_service import Measured
from rich.console import Console
from rich.table import Table

from accord_preference.storage.opening import open_store
from accord_preference.storage.sql import mapping, tables

# The PostgreSQL test server belongs to the tests.
sys.path.append(str(Path(__file__).resolve().parent.parent))
from tests.support.postgresql import running

DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "256MB"}


def databases(arguments: argparse.Namespace, stack: ExitStack, folder: Path) -> Iterator[tuple[str, Iterator[str]]]:
    """(kind, URLs of empty databases of this kind)."""
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
        named = [
            (table, [mapping.values(row) for row in part])
            for table, part in zip((tables.prompts, tables.completions, tables.feedback), moved, strict=True)
        ]
        # Alternating, so that other load affects all of them alike.
        for number in range(arguments.rounds):
            url = next(urls)
            await (await open_store(url)).close()
            result.moved(result.ingest, "bare", bare.ingest(url, named))
            result.moved(result.export, "bare", bare.export(url))
            await measure_store(next(urls), moved, result)
            await measure_service(next(urls), folder / f"{kind}-{number}", records, result)
    if "leases" in arguments.part:
        await measure_leases(next(urls), folder / kind, arguments, result)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3, help="of ingest and export; the best of each way counts")
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
