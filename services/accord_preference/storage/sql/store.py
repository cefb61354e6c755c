"""The store in an SQL database, through SQLAlchemy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from accord_preference.storage.sql.postgresql import PostgresWriter
from accord_preference.storage.sql.read import SqlReader
from accord_preference.storage.sql.write import SqlWriter
from accord_preference.storage.store import Reader, Writer
from accord_runtime.database import transactions
from accord_runtime.database.migrate import migrate
from accord_runtime.database.schema import bring_up
from accord_runtime.serving.settings import DatabaseSettings

PACKAGE = "accord_preference"


class SqlStore:
    """A `Store` over one engine; `writer`: the writer for its kind of database."""

    def __init__(self, engine: AsyncEngine, writer: type[SqlWriter] = SqlWriter):
        self._engine = engine
        self._writer = writer

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Reader]:
        async with transactions.reading(self._engine) as connection:
            yield SqlReader(connection)

    @asynccontextmanager
    async def writing(self, *, steady: bool = False) -> AsyncIterator[Writer]:
        async with transactions.writing(self._engine, steady=steady) as connection:
            yield self._writer(connection)

    async def close(self) -> None:
        await self._engine.dispose()


async def open_sqlite(url: str, settings: DatabaseSettings | None = None) -> SqlStore:
    """The store in a SQLite file."""
    return await _open(url, settings, SqlWriter)


async def open_postgresql(url: str, settings: DatabaseSettings | None = None) -> SqlStore:
    """The store in a PostgreSQL database."""
    return await _open(url, settings, PostgresWriter)


async def _open(url: str, settings: DatabaseSettings | None, writer: type[SqlWriter]) -> SqlStore:
    await (migrate(url, PACKAGE) if settings is None else bring_up(url, PACKAGE, settings))
    return SqlStore(transactions.open_database(url), writer)
