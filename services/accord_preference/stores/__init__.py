"""Stores, chosen by the scheme of their URL."""

from __future__ import annotations

from accord_preference.store import Store


async def open_store(url: str) -> Store:
    """The store at `url`, its schema up to date. InvalidArgument, UNKNOWN_STORE, for a scheme that nothing serves."""
    from accord_preference.stores.postgresql import PostgresWriter
    from accord_preference.stores.sql import SqlStore
    from accord_preference.stores.sql_write import SqlWriter
    from accord_runtime.database import migrate, open_database

    engine = open_database(url)
    try:
        await migrate(url, "accord_preference")
    except BaseException:
        await engine.dispose()
        raise
    return SqlStore(engine, PostgresWriter if engine.dialect.name == "postgresql" else SqlWriter)
