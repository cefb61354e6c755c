"""The controller's tables. Messages are kept whole (serialised protos), with beside them only what is searched by."""

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
    # Counts up: newest first is by it.
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("run_id", String(63), nullable=False, unique=True),
    Column("request_id", String(200), nullable=False),
    # SHA-256 over the spec as it was asked for: the same run asked for again is recognised by it.
    Column("content", String(64), nullable=False),
    Column("spec", LargeBinary, nullable=False),
    Column("status", LargeBinary, nullable=False),
    Column("state", Integer, nullable=False),
    Column("etag", BigInteger, nullable=False),
    # Wall-clock spent in the current stage so far, over all processes that worked on it.
    Column("stage_seconds", Float, nullable=False),
    # What was used in it so far, a StageUsage; null: nothing was measured.
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
    # What it is, for instance `2/policy/7/experience`.
    Column("key", String(200), primary_key=True),
    # Full name of the message type.
    Column("kind", String(200), nullable=False),
    # The message, when it is one; empty when there is a file.
    Column("payload", LargeBinary, nullable=False),
    # File below the run's folder that holds many messages, and SHA-256 of its bytes.
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

# What was put in force for a run, when and by whom: the history of `models.current`.
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
    # Null: the gate, which asks for nothing.
    Column("request_id", String(200), nullable=True, unique=True),
    # Null: before this table was.
    Column("time", Float, nullable=True),
)
