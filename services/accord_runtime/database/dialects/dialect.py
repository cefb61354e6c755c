"""The seam between services and a kind of database: what differs between kinds, and nothing else."""

from __future__ import annotations

from typing import Any, Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from accord import plugins
from accord.errors import AccordError, InvalidArgument

# An execution option of transactions that will write.
WRITER = {"accord_writer": True}
# Entry points, each named after a scheme of URLs.
GROUP = "accord.dialects"
EXAMPLES = "sqlite:///data.db, postgresql://user:password@host/name"


class Dialect(Protocol):
    """One kind of database; an entry point of group `accord.dialects` names an instance."""

    # True when one transaction writes at a time, and the others wait in this process for their turn.
    one_writer: bool
    # Arguments of SQLAlchemy's create_engine and create_async_engine.
    engine_options: dict[str, Any]

    def asynchronous(self, url: URL) -> URL:
        """`url` with the driver that services use. InvalidArgument for what cannot serve."""
        ...

    def synchronous(self, url: URL) -> URL:
        """`url` with a driver for migrations."""
        ...

    def prepare(self, engine: Engine, url: URL) -> None:
        """Settings of every connection and transaction of `engine`."""
        ...

    def reader_options(self) -> dict[str, Any]:
        """Execution options of a transaction that sees one state and changes nothing."""
        ...

    def writer_options(self, *, steady: bool) -> dict[str, Any]:
        """Execution options of a transaction that may write; `steady`: what it reads is one state besides."""
        ...

    def alone(self, connection: Connection) -> None:
        """Keeps other migrations out until the transaction of `connection` ends."""
        ...

    def version_table(self, package: str) -> str:
        """Where the schema's revision is noted."""
        ...

    def name(self, url: URL) -> str:
        """The database as messages name it, without a password."""
        ...

    def translate(self, error: DBAPIError | Exception, name: str) -> AccordError | None:
        """What the error of the driver means, or None for a fault of the code (a broken constraint, bad SQL)."""
        ...


def parse(url: str) -> tuple[URL, Dialect]:
    """The URL and the dialect of its kind of database. InvalidArgument; UNKNOWN_STORE for an unknown scheme."""
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
