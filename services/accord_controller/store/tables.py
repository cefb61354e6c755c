"""The controller's tables. Messages are stored whole as serialised protos, next to the columns that queries use."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

runs = Table(
    "runs",
    metadata,
    # Ascending; lists are sorted by it in reverse, newest first.
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("run_id", String(63), nullable=False, unique=True),
    Column("request_id", String(200), nullable=False),
    # SHA-256 of the requested spec; identifies the same run when it is requested again.
    Column("content", String(64), nullable=False),
    Column("spec", LargeBinary, nullable=False),
    Column("status", LargeBinary, nullable=False),
    Column("state", Integer, nullable=False),
    Column("etag", BigInteger, nullable=False),
    # Wall-clock time of the current stage so far, over all controller processes.
    Column("stage_seconds", Float, nullable=False),
    # Usage of the stage so far, a StageUsage; null: not measured.
    Column("stage_usage", LargeBinary, nullable=True),
    Column("create_time", Float, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("run_id", String(63), ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("event", LargeBinary, nullable=False),
)

ledger = Table(
    "ledger",
    metadata,
    Column("run_id", String(63), ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True),
    # For instance `2/policy/00007/experience`.
    Column("key", String(200), primary_key=True),
    # Full name of the message type.
    Column("kind", String(200), nullable=False),
    # The message; empty if there is a file.
    Column("payload", LargeBinary, nullable=False),
    # A file of messages below the run's folder, and the SHA-256 of its bytes.
    Column("path", String(300), nullable=True),
    Column("digest", String(64), nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("run_id", String(63), ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("current", Boolean, nullable=False),
    Column("model", LargeBinary, nullable=False),
)

# The history of `models.current`: which model became active, when and by whom.
model_changes = Table(
    "model_changes",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("run_id", String(63), ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("model", String(100), nullable=False),
    Column("previous", String(100), nullable=False),
    Column("kind", Integer, nullable=False),
    Column("operator", String(200), nullable=False),
    Column("reason", String(2000), nullable=False),
    # Null: changed by the gate, which makes no request.
    Column("request_id", String(200), nullable=True, unique=True),
    # Null: before this table existed.
    Column("time", Float, nullable=True),
)
