"""The seam between services and a kind of database: what differs between kinds, and nothing else."""

from __future__ import annotations

import importlib
from typing import Any, Protocol, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from accord.errors import AccordError, InvalidArgument

# An execution option of transactions that will write.
WRITER = {"accord_writer": True}
# Scheme of the URL -> module of the dialect, imported when it is used.
DIALECTS = {"sqlite": "sqlite", "postgresql": "postgresql", "postgres": "postgresql"}
EXAMPLES = "sqlite:///data.db, postgresql://user:password@host/name"


class Dialect(Protocol):
    """One kind of database; a module `accord_runtime.database.dialects.<name>` has one as `dialect`."""

    # True where one transaction writes at a time, and the others wait in this process for their turn.
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
    """The URL and what speaks with its kind of database. InvalidArgument says what a URL looks like."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidArgument.at(
            "database_url", f"cannot be read as a database URL: {url!r}; for instance {EXAMPLES}"
        ) from error
    scheme = parsed.drivername.partition("+")[0]
    if scheme not in DIALECTS:
        raise InvalidArgument.at(
            "database_url",
            f"there is no database of kind {scheme!r} here; for instance {EXAMPLES}",
            reason="UNKNOWN_STORE",
        )
    module = importlib.import_module(f"accord_runtime.database.dialects.{DIALECTS[scheme]}")
    return parsed, cast(Dialect, module.dialect)
