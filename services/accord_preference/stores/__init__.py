"""Stores, chosen by the scheme of their URL."""

from __future__ import annotations

from accord.errors import InvalidArgument
from accord_preference.store import Store

SCHEMES = ("sqlite", "sqlite+aiosqlite")


async def open_store(url: str) -> Store:
    """The store at `url`, its schema up to date. InvalidArgument, UNKNOWN_STORE, for a scheme that nothing serves."""
    from accord_preference.stores.sql import SqlStore
    from accord_runtime.database import migrate, open_database

    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        raise InvalidArgument.at(
            "database_url",
            f"no store for {scheme!r}; there is {', '.join(SCHEMES)}: sqlite+aiosqlite:///path/to/file.db",
            reason="UNKNOWN_STORE",
        )
    await migrate(url, "accord_preference")
    return SqlStore(open_database(url))
