"""Databases of services: opening, transactions, and errors that say what to do.

A service opens its database with `open_database(url)` and works in `reading(engine)` and `writing(engine)`
transactions. The differences between kinds of databases are all in `accord_runtime.database.dialects`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

from sqlalchemy import Engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from accord.errors import FailedPrecondition, Unavailable
from accord_runtime.database.dialects.dialect import Dialect, parse

POOL_SECONDS = 30.0

_opened: WeakKeyDictionary[Engine, tuple[Dialect, asyncio.Lock | None]] = WeakKeyDictionary()


def database_url(url: str, *, default: Path) -> str:
    """`url`, or the SQLite file `default` if `url` is empty."""
    return url or f"sqlite+aiosqlite:///{default}"


def open_database(url: str) -> AsyncEngine:
    """An engine for `url`: `sqlite:///path/to/file.db` or `postgresql://user:password@host/name`.

    Committed data survives a power failure. Raises InvalidArgument for an invalid URL. Connects at first use.
    """
    parsed, dialect = parse(url)
    parsed = dialect.asynchronous(parsed)
    options = {"pool_size": 8, "max_overflow": 8, "pool_timeout": POOL_SECONDS, **dialect.engine_options}
    try:
        engine = create_async_engine(parsed, **options)
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"the driver of {dialect.name(parsed)} is not installed ({error}). Run pip install 'accord-rlhf[postgres]'",
            reason="NO_DRIVER",
        ) from error
    dialect.prepare(engine.sync_engine, parsed)
    _opened[engine.sync_engine] = dialect, asyncio.Lock() if dialect.one_writer else None
    return engine


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A read-only transaction that sees one state of the database from its first query to its end."""
    dialect, _ = _opened[engine.sync_engine]
    with friendly_errors(engine.url, dialect):
        async with engine.connect() as connection:
            await connection.execution_options(**dialect.reader_options())
            yield connection


@asynccontextmanager
async def writing(engine: AsyncEngine, *, steady: bool = False) -> AsyncIterator[AsyncConnection]:
    """A transaction that may write. It is committed at the end, or rolled back if the body raises or is cancelled.

    SQLite runs one at a time. Other databases run several at once, so the body locks rows that must not change in the
    meantime. Aborted, DATABASE_CONFLICT, means that the transaction may run again. `steady`: all reads see one state.
    """
    dialect, lock = _opened[engine.sync_engine]
    if lock is None:
        async with _begin(engine, dialect, steady) as connection:
            yield connection
        return
    async with lock, _begin(engine, dialect, steady) as connection:
        yield connection


@contextmanager
def friendly_errors(url: URL, dialect: Dialect) -> Iterator[None]:
    """Translates database errors into `accord.errors` that name the database and say what to do."""
    try:
        yield
    except PoolTimeout as error:
        name = dialect.name(url)
        raise Unavailable(
            f"too many calls are waiting for the database {name}. Try again later",
            reason="DATABASE_BUSY",
            metadata={"database": name},
        ) from error
    except (DBAPIError, sqlite3.Error) as error:
        if (translated := dialect.translate(error, dialect.name(url))) is None:
            raise  # a bug (a violated constraint, an invalid statement); the log shows its traceback
        raise translated from error


@asynccontextmanager
async def _begin(engine: AsyncEngine, dialect: Dialect, steady: bool) -> AsyncIterator[AsyncConnection]:
    with friendly_errors(engine.url, dialect):
        async with engine.connect() as connection:
            await connection.execution_options(**dialect.writer_options(steady=steady))
            async with connection.begin():
                yield connection
