"""Stores, chosen by the scheme of their URL."""

from __future__ import annotations

from accord_preference.storage.store import Store


async def open_store(url: str, *, up_to_date: bool = False) -> Store:
    """The store at `url`, its schema brought up unless it is `up_to_date`. InvalidArgument, UNKNOWN_STORE, for a scheme
    that nothing serves."""
    from accord_preference.storage.sql.postgresql import PostgresWriter
    from accord_preference.storage.sql.store import SqlStore
    from accord_preference.storage.sql.write import SqlWriter
    from accord_runtime.database.connect import migrate, open_database

    if not up_to_date:
        await migrate(url, "accord_preference")
    engine = open_database(url)
    return SqlStore(engine, PostgresWriter if engine.dialect.name == "postgresql" else SqlWriter)
