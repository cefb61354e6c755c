"""Databases of services: opening, transactions, migrations, and errors that say what to do.

A service asks for `open_database(url)` and works in `reading(engine)` and `writing(engine)` transactions; nothing of
SQLite shows above this file. `writing` takes the write lock at its start (BEGIN IMMEDIATE), because a SQLite
transaction that reads first and writes later fails at once, without waiting, when somebody else wrote in between.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from accord.errors import AccordError, DataLoss, FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable

BUSY_SECONDS = 30.0

_WRITER = {"accord_writer": True}
# Alembic keeps its migration context in module globals, so one migration at a time in a process.
_migrating = threading.Lock()
# SQLite has one writer at a time; waiting in order here is fair and cheap, waiting in SQLite is polling.
_write_locks: WeakKeyDictionary[Engine, asyncio.Lock] = WeakKeyDictionary()


def database_url(url: str, *, default: Path) -> str:
    """`url`, or the SQLite file `default` where `url` is empty."""
    return url or f"sqlite+aiosqlite:///{default}"


def open_database(url: str) -> AsyncEngine:
    """An engine for `url` (`sqlite+aiosqlite:///path/to/file.db`; `sqlite:///...` is taken as the same).

    SQLite runs with write-ahead log, foreign keys, a busy timeout of 30 s and synchronous FULL: what is committed
    survives the loss of power. The folder of the file is made. Raises InvalidArgument for an URL that cannot serve.
    """
    parsed = _parse(url)
    engine = create_async_engine(parsed, pool_size=8, max_overflow=8, pool_timeout=BUSY_SECONDS)
    if parsed.get_backend_name() == "sqlite":
        _prepare_sqlite(engine.sync_engine, parsed)
        _write_locks[engine.sync_engine] = asyncio.Lock()
    return engine


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that sees one state of the database from its first query to its end and changes nothing."""
    with friendly_errors(engine.url):
        async with engine.connect() as connection:
            yield connection


@asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that may write: committed at the end, undone as a whole when the body raises or is cancelled."""
    lock = _write_locks.get(engine.sync_engine)
    if lock is None:
        async with _begin(engine) as connection:
            yield connection
        return
    async with lock, _begin(engine) as connection:
        yield connection


async def migrate(url: str, package: str, *, revision: str = "head") -> None:
    """Brings the database to `revision` of the alembic scripts in `package`'s folder `migrations/`.

    One transaction: a process killed in the middle leaves the schema as it was. Runs in a thread. Raises
    FailedPrecondition where the database was made by a newer version of the package.
    """
    await asyncio.to_thread(_run_alembic, url, package, revision, "upgrade")


async def downgrade(url: str, package: str, *, revision: str = "base") -> None:
    """Takes the database back to `revision`; `base` removes every table of the package, and what is in them."""
    await asyncio.to_thread(_run_alembic, url, package, revision, "downgrade")


@contextmanager
def friendly_errors(url: URL) -> Iterator[None]:
    """Turns a database's own errors into `accord.errors` that name the database and say what to do."""
    try:
        yield
    except (DBAPIError, sqlite3.Error, PoolTimeout) as error:
        if (translated := _translate(error, url)) is None:
            raise  # a fault of the code (a broken constraint, a wrong statement), for the log with its trace
        raise translated from error


@asynccontextmanager
async def _begin(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    with friendly_errors(engine.url):
        async with engine.connect() as connection:
            await connection.execution_options(**_WRITER)
            async with connection.begin():
                yield connection


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidArgument.at(
            "database_url", f"cannot be read as a database URL: {url!r}; for instance sqlite+aiosqlite:///data.db"
        ) from error
    if parsed.get_backend_name() != "sqlite":
        return parsed
    if parsed.database in (None, "", ":memory:"):
        raise InvalidArgument.at(
            "database_url", "needs a file: a database in memory is lost with the process; sqlite+aiosqlite:///data.db"
        )
    return parsed.set(drivername="sqlite+aiosqlite")


def _prepare_sqlite(engine: Engine, url: URL) -> None:
    folder = Path(str(url.database)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FailedPrecondition(
            f"the folder of the database cannot be made: {folder}: {error.strerror}", reason="DATABASE_UNREACHABLE"
        ) from error

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # The driver's own implicit BEGIN would start every transaction as a reader; ours are explicit.
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

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writer = connection.get_execution_options().get("accord_writer")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")


def _run_alembic(url: str, package: str, revision: str, change: Literal["upgrade", "downgrade"]) -> None:
    # Before its import: alembic tells of every plugin and of every look at a database.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    parsed = _parse(url)
    with _migrating, friendly_errors(parsed), as_file(files(package) / "migrations") as folder:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        # The path separator keeps alembic from splitting folders at spaces.
        config.set_main_option("path_separator", "os")
        sync_url = parsed.set(drivername="sqlite") if parsed.get_backend_name() == "sqlite" else parsed
        engine = create_engine(sync_url)
        try:
            if parsed.get_backend_name() == "sqlite":
                _prepare_sqlite(engine, parsed)
            with engine.connect().execution_options(**_WRITER) as connection, connection.begin():
                config.attributes["connection"] = connection
                (command.upgrade if change == "upgrade" else command.downgrade)(config, revision)
        except CommandError as error:
            raise FailedPrecondition(
                f"the database {_name(parsed)} cannot be brought to revision {revision} of {package}: {error}; was it "
                "made by a newer version of Accord? Use that version, or another database",
                reason="DATABASE_REVISION",
            ) from error
        finally:
            engine.dispose()


def _name(url: URL) -> str:
    return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


def _translate(error: DBAPIError | sqlite3.Error | PoolTimeout, url: URL) -> AccordError | None:
    original = error.orig if isinstance(error, DBAPIError) else error
    text, name = str(original), _name(url)
    metadata = {"database": name}
    if "locked" in text or "busy" in text:
        return Unavailable(
            f"the database {name} was locked by another process for {BUSY_SECONDS:g} s; try again, or end that process",
            reason="DATABASE_LOCKED",
            metadata=metadata,
        )
    if "is full" in text:
        return ResourceExhausted(
            f"no room left on the disk of {name}: nothing of this call was kept; free some space and repeat it",
            reason="DISK_FULL",
            metadata=metadata,
        )
    if "not a database" in text or "malformed" in text:
        return DataLoss(
            f"{name} is not an Accord database, or is damaged ({text}); put back a copy, or name another file",
            reason="NOT_A_DATABASE",
            metadata=metadata,
        )
    if "readonly" in text or "unable to open" in text:
        return FailedPrecondition(
            f"the database {name} cannot be opened for writing ({text}); check the path and its permissions",
            reason="DATABASE_UNREACHABLE",
            metadata=metadata,
        )
    if isinstance(original, sqlite3.IntegrityError | sqlite3.ProgrammingError):
        return None
    if isinstance(error, PoolTimeout):
        return Unavailable(
            f"too many calls are waiting for the database {name}; try again", reason="DATABASE_BUSY", metadata=metadata
        )
    return Unavailable(f"the database {name} failed: {text}", reason="DATABASE_ERROR", metadata=metadata)
