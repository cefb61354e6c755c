"""PostgreSQL through psycopg 3: many transactions write at once.

Reading transactions are REPEATABLE READ and read-only: one state from the first query to the last. Writing ones are
READ COMMITTED: what must not change under them they lock by row. Where two made the same or got in each other's way,
one of them gets Aborted, DATABASE_CONFLICT, has changed nothing, and may run again.
"""

from __future__ import annotations

import zlib
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

from accord.errors import (
    Aborted,
    AccordError,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)

CONNECT_SECONDS = 10
LOCK_SECONDS = 30
DRIVERS = ("postgresql", "postgres", "postgresql+psycopg")
_CONFLICTS = {
    "40001": "somebody else changed it meanwhile",
    "40P01": "two transactions waited for each other",
    "23505": "somebody else added the same meanwhile",
}
# Refused, and later not.
_BUSY = ("too many", "starting up", "shutting down", "not yet accepting", "remaining connection slots")
_UNREACHABLE = {
    "42501": "the user of the URL must be allowed to make and change tables",
    "25006": "it takes no writes; name the primary server",
}


class PostgresDialect:
    """See `Dialect`."""

    one_writer = False
    engine_options: dict[str, Any] = {"pool_pre_ping": True}  # noqa: RUF012

    def asynchronous(self, url: URL) -> URL:
        """See `Dialect`: `postgresql://` is taken as `postgresql+psycopg://`."""
        if url.drivername not in DRIVERS:
            raise InvalidArgument.at(
                "database_url",
                f"starts with {url.drivername}://; the driver here is psycopg: postgresql://...",
                reason="UNKNOWN_STORE",
            )
        if not url.database:
            raise InvalidArgument.at("database_url", "names no database: postgresql://user:password@host/name")
        # A server that went away is noticed, and nobody waits for ever for a lock or for an answer.
        timeouts = f"-c lock_timeout={LOCK_SECONDS}s -c idle_in_transaction_session_timeout=300s"
        query = {
            "connect_timeout": str(CONNECT_SECONDS),
            "tcp_user_timeout": str(LOCK_SECONDS * 1000),
            "application_name": "accord",
            **url.query,
            "options": f"{timeouts} {url.query.get('options', '')}".strip(),
        }
        return url.set(drivername="postgresql+psycopg", query=query)

    def synchronous(self, url: URL) -> URL:
        """See `Dialect`: psycopg speaks both ways."""
        return self.asynchronous(url)

    def prepare(self, engine: Engine, url: URL) -> None:
        """See `Dialect`: all of it is in the URL."""

    def reader_options(self) -> dict[str, Any]:
        return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

    def writer_options(self, *, steady: bool) -> dict[str, Any]:
        return {"isolation_level": "REPEATABLE READ" if steady else "READ COMMITTED", "postgresql_readonly": False}

    def alone(self, connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": zlib.crc32(b"accord.migrations")})

    def version_table(self, package: str) -> str:
        """See `Dialect`: packages may share a database."""
        return f"alembic_version_{package}"

    def name(self, url: URL) -> str:
        return f"{url.database} at {url.host or url.query.get('host') or 'localhost'}"

    def translate(self, error: DBAPIError | Exception, name: str) -> AccordError | None:
        original = error.orig if isinstance(error, DBAPIError) else error
        state = str(getattr(original, "sqlstate", None) or "")
        said, metadata = (str(original).strip().splitlines() or [type(original).__name__])[0], {"database": name}
        if not state and "FATAL:" in said and not any(busy in said for busy in _BUSY):
            # Refused at the door; the driver keeps no state of that.
            return FailedPrecondition(
                f"the database {name} cannot be used ({said}); check user, password and database name in the URL "
                "(createdb makes a database)",
                reason="DATABASE_UNREACHABLE",
                metadata=metadata,
            )
        if state in _CONFLICTS:
            return Aborted(
                f"{_CONFLICTS[state]}; nothing of this call was kept, repeat it",
                reason="DATABASE_CONFLICT",
                metadata={**metadata, "detail": said},
            )
        for start, hint in _UNREACHABLE.items():
            if state.startswith(start):
                return FailedPrecondition(
                    f"the database {name} cannot be used ({said}); {hint}",
                    reason="DATABASE_UNREACHABLE",
                    metadata=metadata,
                )
        if state == "55P03":
            return Unavailable(
                f"another transaction held a lock in the database {name} for {LOCK_SECONDS} s; try again",
                reason="DATABASE_LOCKED",
                metadata=metadata,
            )
        if state == "53100":
            return ResourceExhausted(
                f"no room left on the disk of {name}: nothing of this call was kept; free some space and repeat it",
                reason="DISK_FULL",
                metadata=metadata,
            )
        if state == "54000":
            return InvalidArgument(
                f"a name or an id of the request is too long for the database ({said}); give it at most 2,000 bytes",
                reason="NAME_TOO_LONG",
                metadata=metadata,
            )
        if state.startswith("XX"):
            return DataLoss(f"the database {name} is damaged ({said}); put back a copy", reason="DATABASE_DAMAGED")
        if isinstance(error, DataError | IntegrityError | ProgrammingError):
            return None
        # 08: the connection broke; 53300: too many; 57: the server stops or starts; none: it could not be reached.
        reached = "" if state else "; is the server running, and does the URL name it?"
        return Unavailable(
            f"the database {name} failed: {said}{reached}",
            reason="DATABASE_ERROR",
            metadata={**metadata, "state": state},
        )


dialect = PostgresDialect()
