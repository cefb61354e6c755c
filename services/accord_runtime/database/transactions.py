"""Databases of services: opening, transactions, and errors that say what to do.

A service opens its database with `open_database(url)` and works in `reading(engine)` and `writing(engine)`
transactions. What differs between kinds of databases is in `accord_runtime.database.dialects` and nowhere else.
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
