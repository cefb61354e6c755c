"""Databases of services: opening, transactions, migrations, and errors that say what to do.

A service asks for `open_database(url)` and works in `reading(engine)` and `writing(engine)` transactions; what differs
between databases is in `accord_runtime.database.dialects`, and nothing of it shows above this file.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from accord.errors import FailedPrecondition, Unavailable
from accord_runtime.database.dialects.dialect import Dialect, parse

if TYPE_CHECKING:
    from alembic.config import Config

POOL_SECONDS = 30.0

# Alembic keeps its migration context in module globals, so one migration at a time in a process.
_migrating = threading.Lock()
_opened: WeakKeyDictionary[Engine, tuple[Dialect, asyncio.Lock | None]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Revision:
    """Of a schema: what was `found` (empty: nothing yet), what this version of the package has (`wanted`), and the
    `database` as messages name it."""

    database: str
    found: str
    wanted: str


def database_url(url: str, *, default: Path) -> str:
    """`url`, or the SQLite file `default` where `url` is empty."""
    return url or f"sqlite+aiosqlite:///{default}"


def open_database(url: str) -> AsyncEngine:
    """An engine for `url`: `sqlite:///path/to/file.db` or `postgresql://user:password@host/name`.

    What is committed survives the loss of power. Raises InvalidArgument for a URL that cannot serve. Connects when it
    is first used.
    """
    parsed, dialect = parse(url)
    parsed = dialect.asynchronous(parsed)
    options = {"pool_size": 8, "max_overflow": 8, "pool_timeout": POOL_SECONDS, **dialect.engine_options}
    try:
        engine = create_async_engine(parsed, **options)
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"the driver of {dialect.name(parsed)} is not installed ({error}); pip install 'accord-rlhf[postgres]'",
            reason="NO_DRIVER",
        ) from error
    dialect.prepare(engine.sync_engine, parsed)
    _opened[engine.sync_engine] = dialect, asyncio.Lock() if dialect.one_writer else None
    return engine


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that sees one state of the database from its first query to its end and changes nothing."""
    dialect, _ = _opened[engine.sync_engine]
    with friendly_errors(engine.url, dialect):
        async with engine.connect() as connection:
            await connection.execution_options(**dialect.reader_options())
            yield connection


@asynccontextmanager
async def writing(engine: AsyncEngine, *, steady: bool = False) -> AsyncIterator[AsyncConnection]:
    """A transaction that may write: committed at the end, undone as a whole when the body raises or is cancelled.

    SQLite runs one at a time, others run several at once: what must not change meanwhile is locked by whoever needs it,
    and Aborted, DATABASE_CONFLICT, says that the transaction may be run again. `steady`: what it reads is one state.
    """
    dialect, lock = _opened[engine.sync_engine]
    if lock is None:
        async with _begin(engine, dialect, steady) as connection:
            yield connection
        return
    async with lock, _begin(engine, dialect, steady) as connection:
        yield connection


async def migrate(url: str, package: str, *, revision: str = "head") -> None:
    """Brings the database to `revision` of the alembic scripts in `package`'s folder `migrations/`.

    One transaction: a process killed in the middle leaves the schema as it was. Runs in a thread. Raises
    FailedPrecondition where the database was made by a newer version of the package.
    """
    await asyncio.to_thread(_run_alembic, url, package, revision, "upgrade")


async def revision_of(url: str, package: str) -> Revision:
    """Where the schema of `package` stands; changes nothing. FailedPrecondition, DATABASE_REVISION, where it was made
    by a newer version of the package."""
    return await asyncio.to_thread(_read_revision, url, package)


async def downgrade(url: str, package: str, *, revision: str = "base") -> None:
    """Takes the database back to `revision`; `base` removes every table of the package, and what is in them."""
    await asyncio.to_thread(_run_alembic, url, package, revision, "downgrade")


@contextmanager
def friendly_errors(url: URL, dialect: Dialect) -> Iterator[None]:
    """Turns a database's own errors into `accord.errors` that name the database and say what to do."""
    try:
        yield
    except PoolTimeout as error:
        name = dialect.name(url)
        raise Unavailable(
            f"too many calls are waiting for the database {name}; try again",
            reason="DATABASE_BUSY",
            metadata={"database": name},
        ) from error
    except (DBAPIError, sqlite3.Error) as error:
        if (translated := dialect.translate(error, dialect.name(url))) is None:
            raise  # a fault of the code (a broken constraint, a wrong statement), for the log with its trace
        raise translated from error


@asynccontextmanager
async def _begin(engine: AsyncEngine, dialect: Dialect, steady: bool) -> AsyncIterator[AsyncConnection]:
    with friendly_errors(engine.url, dialect):
        async with engine.connect() as connection:
            await connection.execution_options(**dialect.writer_options(steady=steady))
            async with connection.begin():
                yield connection


def _run_alembic(url: str, package: str, revision: str, change: Literal["upgrade", "downgrade"]) -> None:
    with _alembic(url, package) as (config, engine, dialect):
        from alembic import command
        from alembic.util import CommandError

        options: dict[str, Any] = dialect.writer_options(steady=False)
        try:
            with engine.connect().execution_options(**options) as connection, connection.begin():
                dialect.alone(connection)
                config.attributes["connection"] = connection
                (command.upgrade if change == "upgrade" else command.downgrade)(config, revision)
        except CommandError as error:
            raise _other_version(dialect.name(engine.url), package, revision, str(error)) from error


def _read_revision(url: str, package: str) -> Revision:
    with _alembic(url, package) as (config, engine, dialect):
        from alembic.migration import MigrationContext
        from alembic.script import ScriptDirectory

        scripts = ScriptDirectory.from_config(config)
        wanted = scripts.get_current_head() or ""
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": config.attributes["version_table"]})
            found = context.get_current_revision() or ""
        database = dialect.name(engine.url)
        if found and found not in {script.revision for script in scripts.walk_revisions()}:
            raise _other_version(database, package, wanted, f"it is at revision {found}")
        return Revision(database, found, wanted)


@contextmanager
def _alembic(url: str, package: str) -> Iterator[tuple[Config, Engine, Dialect]]:
    """Alembic's configuration for `package` and a connection to `url`, for one change or look at a time."""
    # Before its import: alembic tells of every plugin and of every look at a database.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic.config import Config

    parsed, dialect = parse(url)
    parsed = dialect.synchronous(parsed)
    with _migrating, friendly_errors(parsed, dialect), as_file(files(package) / "migrations") as folder:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        # The path separator keeps alembic from splitting folders at spaces.
        config.set_main_option("path_separator", "os")
        config.attributes["version_table"] = dialect.version_table(package)
        engine = create_engine(parsed, **dialect.engine_options)
        try:
            dialect.prepare(engine, parsed)
            yield config, engine, dialect
        finally:
            engine.dispose()


def _other_version(database: str, package: str, revision: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the database {database} cannot be brought to revision {revision} of {package}: {why}; "
        "was it made by a newer version of Accord? Use that version, or another database",
        reason="DATABASE_REVISION",
        metadata={"database": database},
    )
