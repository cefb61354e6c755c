"""PostgreSQL through psycopg 3: many transactions write at once.

Reading transactions are REPEATABLE READ and read-only: they see one state. Writing transactions are READ COMMITTED and
lock the rows that must not change in the meantime. If two add the same row or block each other, one of them gets
Aborted, DATABASE_CONFLICT: it has changed nothing and may run again.
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
    "40001": "another transaction changed the same rows",
    "40P01": "two transactions waited for each other (deadlock)",
    "23505": "another transaction added the same rows",
}
# Connections that are refused now but accepted later.
_BUSY = ("too many", "starting up", "shutting down", "not yet accepting", "remaining connection slots")
_UNREACHABLE = {
    "42501": "the user in the URL must be allowed to create and change tables",
    "25006": "it is read-only; use the URL of the primary server",
}


class PostgresDialect:
    """`Dialect` for PostgreSQL."""

    one_writer = False
    engine_options: dict[str, Any] = {"pool_pre_ping": True}  # noqa: RUF012

    def asynchronous(self, url: URL) -> URL:
        if url.drivername not in DRIVERS:
            raise InvalidArgument.at(
                "database_url",
                f"starts with {url.drivername}://, but the supported driver is psycopg. Use postgresql://...",
                reason="UNKNOWN_STORE",
            )
        if not url.database:
            raise InvalidArgument.at(
                "database_url", "has no database name. For example: postgresql://user:password@host/name"
            )
        # With these, a lost server is detected and no call waits forever for a lock or a response.
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
        return self.asynchronous(url)  # psycopg has both interfaces

    def prepare(self, engine: Engine, url: URL) -> None:
        """Nothing to do: the URL has all settings."""

    def reader_options(self) -> dict[str, Any]:
        return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

    def writer_options(self, *, steady: bool) -> dict[str, Any]:
        return {"isolation_level": "REPEATABLE READ" if steady else "READ COMMITTED", "postgresql_readonly": False}

    def lock_migrations(self, connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": zlib.crc32(b"accord.migrations")})

    def version_table(self, package: str) -> str:
        return f"alembic_version_{package}"  # packages may share a database

    def name(self, url: URL) -> str:
        return f"{url.database} at {url.host or url.query.get('host') or 'localhost'}"

    def translate(self, error: DBAPIError | Exception, name: str) -> AccordError | None:
        original = error.orig if isinstance(error, DBAPIError) else error
        state = str(getattr(original, "sqlstate", None) or "")
        said, metadata = (str(original).strip().splitlines() or [type(original).__name__])[0], {"database": name}
        if not state and "FATAL:" in said and not any(busy in said for busy in _BUSY):
            # A refused connection; such an error has no SQLSTATE.
            return FailedPrecondition(
                f"the database {name} cannot be used ({said}). Check the user, password and database name in the URL "
                "(createdb creates a database)",
                reason="DATABASE_UNREACHABLE",
                metadata=metadata,
            )
        if state in _CONFLICTS:
            return Aborted(
                f"{_CONFLICTS[state]}; nothing of this call was stored. Repeat the call",
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
                f"another transaction held a lock in the database {name} for {LOCK_SECONDS} s. Try again",
                reason="DATABASE_LOCKED",
                metadata=metadata,
            )
        if state == "53100":
            return ResourceExhausted(
                f"the disk of {name} is full, and nothing of this call was stored. Free some space and repeat the call",
                reason="DISK_FULL",
                metadata=metadata,
            )
        if state == "54000":
            return InvalidArgument(
                f"a name or an id in the request is too long for the database ({said}). Use at most 2,000 bytes",
                reason="NAME_TOO_LONG",
                metadata=metadata,
            )
        if state.startswith("XX"):
            return DataLoss(f"the database {name} is damaged ({said}). Restore a backup", reason="DATABASE_DAMAGED")
        if isinstance(error, DataError | IntegrityError | ProgrammingError):
            return None
        # 08: connection lost; 53300: too many connections; 57: the server stops or starts; none: the server is
        # unreachable.
        reached = "" if state else ". Is the server running, and is the URL correct?"
        return Unavailable(
            f"the database {name} failed: {said}{reached}",
            reason="DATABASE_ERROR",
            metadata={**metadata, "state": state},
        )


dialect = PostgresDialect()
