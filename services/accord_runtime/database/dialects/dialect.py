"""The seam to a kind of database: only the differences between kinds."""

from __future__ import annotations

from typing import Any, Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from accord import plugins
from accord.errors import AccordError, InvalidArgument

# An execution option of transactions that write.
WRITER = {"accord_writer": True}
# Entry points, which have the names of URL schemes.
GROUP = "accord.dialects"
EXAMPLES = "sqlite:///data.db, postgresql://user:password@host/name"


class Dialect(Protocol):
    """One kind of database; an entry point of group `accord.dialects` names an instance."""

    # True if only one transaction writes at a time and the others wait their turn in this process.
    one_writer: bool
    # Arguments for SQLAlchemy's create_engine and create_async_engine.
    engine_options: dict[str, Any]

    def asynchronous(self, url: URL) -> URL:
        """`url` with the driver for services. InvalidArgument for an unsuitable URL."""
        ...

    def synchronous(self, url: URL) -> URL:
        """`url` with the driver for migrations."""
        ...

    def prepare(self, engine: Engine, url: URL) -> None:
        """Configures every connection and transaction of `engine`."""
        ...

    def reader_options(self) -> dict[str, Any]:
        """Execution options of a read-only transaction that sees one state."""
        ...

    def writer_options(self, *, steady: bool) -> dict[str, Any]:
        """Execution options of a transaction that may write; `steady`: all its reads see one state."""
        ...

    def lock_migrations(self, connection: Connection) -> None:
        """Makes other migrations wait until the transaction of `connection` ends."""
        ...

    def version_table(self, package: str) -> str:
        """The table with the revision of the package's schema."""
        ...

    def name(self, url: URL) -> str:
        """The name of the database for messages, without a password."""
        ...

    def translate(self, error: DBAPIError | Exception, name: str) -> AccordError | None:
        """The AccordError for a driver's error; None for a bug (a violated constraint, invalid SQL)."""
        ...


def parse(url: str) -> tuple[URL, Dialect]:
    """The URL and the dialect for its kind of database. InvalidArgument; UNKNOWN_STORE for an unknown scheme."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidArgument.at("database_url", f"is not a database URL: {url!r}. For example: {EXAMPLES}") from error
    scheme = parsed.drivername.partition("+")[0]
    known = plugins.names(GROUP)
    if scheme not in known:
        raise InvalidArgument.at(
            "database_url",
            f"unknown kind of database {scheme!r}; available: {', '.join(known)}. For example: {EXAMPLES}",
            reason="UNKNOWN_STORE",
        )
    dialect: Dialect = plugins.load(GROUP, scheme, field="database_url")
    return parsed, dialect
