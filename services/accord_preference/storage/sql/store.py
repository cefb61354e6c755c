"""The store in an SQL database, in SQLAlchemy's terms: what differs between databases is in accord_runtime.database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from accord_preference.storage.sql.read import SqlReader
from accord_preference.storage.sql.write import SqlWriter
from accord_preference.storage.store import Reader, Writer
from accord_runtime.database import connect


class SqlStore:
    """A `Store` over one engine; `writer` is what writes in its kind of database."""

    def __init__(self, engine: AsyncEngine, writer: type[SqlWriter] = SqlWriter):
        self._engine = engine
        self._writer = writer

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Reader]:
        async with connect.reading(self._engine) as connection:
            yield SqlReader(connection)

    @asynccontextmanager
    async def writing(self, *, steady: bool = False) -> AsyncIterator[Writer]:
        async with connect.writing(self._engine, steady=steady) as connection:
            yield self._writer(connection)

    async def close(self) -> None:
        await self._engine.dispose()
