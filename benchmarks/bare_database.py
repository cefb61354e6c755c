"""The fastest plain way to write to and read from a database: the baseline of benchmarks/preferences.py."""

from __future__ import annotations

import sqlite3
import time
from typing import Any, Protocol

from sqlalchemy import Table

Rows = list[tuple[Table, list[dict[str, Any]]]]
# Every judgement with its prompt and answers, in the order of an export.
JOINED = """
SELECT f.*, p.*, c.text, r.text FROM feedback f JOIN prompts p ON p.prompt_id = f.prompt_id
JOIN completions c ON c.completion_id = {first} JOIN completions r ON r.completion_id = {second}
ORDER BY f.record_digest, f.number
"""


class Bare(Protocol):
    """One kind of database."""

    def ingest(self, url: str, parts: Rows) -> float:
        """Seconds to add these rows to existing tables, in one durable transaction."""
        ...

    def export(self, url: str) -> float:
        """Seconds to read them back."""
        ...


class Sqlite:
    """executemany and SELECT of the standard library's driver, with the service's settings."""

    def ingest(self, url: str, parts: Rows) -> float:
        connection = self._connect(url)
        started = time.perf_counter()
        with connection:
            for table, found in parts:
                names = list(found[0])
                marks = ", ".join("?" for _ in names)
                statement = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})"
                connection.executemany(statement, [tuple(row.values()) for row in found])
        taken = time.perf_counter() - started
        connection.close()
        return taken

    def export(self, url: str) -> float:
        connection = self._connect(url)
        started = time.perf_counter()
        query = JOINED.format(first="f.completion_ids ->> 0", second="f.completion_ids ->> 1")
        found = connection.execute(query).fetchall()
        taken = time.perf_counter() - started
        assert found
        connection.close()
        return taken

    def _connect(self, url: str) -> sqlite3.Connection:
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        return connection


class Postgres:
    """COPY, both ways, by psycopg."""

    def ingest(self, url: str, parts: Rows) -> float:
        import psycopg

        with psycopg.connect(url) as connection:
            started = time.perf_counter()
            for table, found in parts:
                with connection.cursor().copy(f"COPY {table.name} ({', '.join(found[0])}) FROM STDIN") as copy:  # type: ignore[arg-type]
                    for row in found:
                        copy.write_row(tuple(row.values()))
            connection.commit()
            return time.perf_counter() - started

    def export(self, url: str) -> float:
        import psycopg

        first, second = ("f.completion_ids::jsonb ->> 0", "f.completion_ids::jsonb ->> 1")
        query = JOINED.format(first=first, second=second).replace("p.*", "p.conversation, p.split")
        with psycopg.connect(url) as connection:
            started = time.perf_counter()
            with connection.cursor().copy(f"COPY ({query}) TO STDOUT") as copy:  # type: ignore[arg-type]
                size = sum(len(block) for block in copy)
            assert size
            return time.perf_counter() - started


def bare_database(kind: str) -> Bare:
    """The plain way of this kind of database."""
    return Postgres() if kind == "postgresql" else Sqlite()
