"""SQLite, embedded: write-ahead log, foreign keys, durable on power failure.

A writing transaction takes the write lock at its start (BEGIN IMMEDIATE). If it read first and wrote later, it would
fail at once, without waiting, whenever another had written in between.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from accord.errors import AccordError, DataLoss, FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from accord_runtime.database.dialects.dialect import WRITER

# How long to wait for a lock that another process holds.
BUSY_SECONDS = 30.0


class SqliteDialect:
    """`Dialect` for SQLite."""

    # A queue in this process is fair and cheap; SQLite itself waits by polling.
    one_writer = True
    engine_options: dict[str, Any] = {}  # noqa: RUF012

    def asynchronous(self, url: URL) -> URL:
        # An in-memory database is refused.
        if url.database in (None, "", ":memory:"):
            raise InvalidArgument.at(
                "database_url",
                "needs a file, because an in-memory database is lost with the process. For example: sqlite:///data.db",
            )
        return url.set(drivername="sqlite+aiosqlite")

    def synchronous(self, url: URL) -> URL:
        return self.asynchronous(url).set(drivername="sqlite")

    def prepare(self, engine: Engine, url: URL) -> None:
        folder = Path(str(url.database)).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FailedPrecondition(
                f"the folder of the database cannot be created: {folder}: {error.strerror}",
                reason="DATABASE_UNREACHABLE",
            ) from error
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)

    def reader_options(self) -> dict[str, Any]:
        return {}  # every SQLite transaction reads one state

    def writer_options(self, *, steady: bool) -> dict[str, Any]:
        return WRITER

    def lock_migrations(self, connection: Connection) -> None:
        """Nothing to do: SQLite has one writer at a time."""

    def version_table(self, package: str) -> str:
        return "alembic_version"  # each package has its own file

    def name(self, url: URL) -> str:
        return str(url.database)

    def translate(self, error: DBAPIError | Exception, name: str) -> AccordError | None:
        original = error.orig if isinstance(error, DBAPIError) else error
        text, metadata = str(original), {"database": name}
        if "locked" in text or "busy" in text:
            return Unavailable(
                f"another process locked the database {name} for {BUSY_SECONDS:g} s. Try again, or end that process",
                reason="DATABASE_LOCKED",
                metadata=metadata,
            )
        if "is full" in text:
            return ResourceExhausted(
                f"the disk of {name} is full, and nothing of this call was stored. Free some space and repeat the call",
                reason="DISK_FULL",
                metadata=metadata,
            )
        if "not a database" in text or "malformed" in text:
            return DataLoss(
                f"{name} is not an Accord database, or is damaged ({text}). Restore a backup, or use another file",
                reason="NOT_A_DATABASE",
                metadata=metadata,
            )
        if "readonly" in text or "unable to open" in text:
            return FailedPrecondition(
                f"the database {name} cannot be opened for writing ({text}). Check the path and its permissions",
                reason="DATABASE_UNREACHABLE",
                metadata=metadata,
            )
        if isinstance(original, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            return None
        return Unavailable(f"the database {name} failed: {text}", reason="DATABASE_ERROR", metadata=metadata)


def _configure(connection: Any, _record: Any) -> None:
    # Begin explicitly, because the driver's implicit BEGIN would start every transaction as a reader.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={int(BUSY_SECONDS * 1000)}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    writer = connection.get_execution_options().get("accord_writer")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")


dialect = SqliteDialect()
