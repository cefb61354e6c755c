"""The tables for SQLAlchemy; migrations/ creates them. They use plain types, so that any SQL database supports them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from accord_preference.storage.sql.column_types import AnyText, Digest

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows automatically only if the key has type INTEGER.
Number = BigInteger().with_variant(Integer(), "sqlite")


def _number() -> Column[int]:
    """A number that grows with every row and gives the insertion order."""
    return Column("number", Number, primary_key=True, autoincrement=True)


def _digest(name: str, *constraints: ForeignKey, nullable: bool = False, unique: bool = False) -> Column[str]:
    return Column(name, Digest, *constraints, nullable=nullable, unique=unique)


prompts = Table(
    "prompts",
    metadata,
    _number(),
    _digest("prompt_id", unique=True),
    Column("conversation", Text, nullable=False),
    Column("source", AnyText, nullable=False),
    Column("split", SmallInteger, nullable=False),
    _digest("record_digest"),
    Index(None, "record_digest"),
    sqlite_autoincrement=True,
)

completions = Table(
    "completions",
    metadata,
    Column("completion_id", Digest, primary_key=True),
    _digest("prompt_id", ForeignKey("prompts.prompt_id")),
    Column("text", AnyText, nullable=False),
    Column("origin", Text, nullable=True),
    Column("finish_reason", SmallInteger, nullable=False, server_default=text("0")),
)

tasks = Table(
    "tasks",
    metadata,
    _number(),
    _digest("task_id", unique=True),
    Column("kind", SmallInteger, nullable=False),
    _digest("prompt_id", ForeignKey("prompts.prompt_id")),
    Column("completion_ids", Text, nullable=False),
    Column("redundancy", Integer, nullable=False),
    Column("queue", AnyText, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("answers", Integer, nullable=False),
    # Canonical JSON of the known answer; NULL: not a gold task.
    Column("gold", Text, nullable=True),
    # Minus the priority: lower values first, equal values by number.
    Column("turn", Integer, nullable=False, server_default=text("0")),
    # Canonical JSON of criteria and instructions; empty if there are none.
    Column("form", Text, nullable=False, server_default=""),
    Column("flags", Integer, nullable=False, server_default=text("0")),
    Index(None, "state", "queue", "turn", "number"),
    Index(None, "state", "turn", "number"),
    Index(None, "queue"),
    sqlite_autoincrement=True,
)

# Gold tasks are few and are searched separately.
_gold = tasks.c.gold.is_not(None)
Index(
    "ix_tasks_gold",
    tasks.c.state,
    tasks.c.queue,
    tasks.c.turn,
    tasks.c.number,
    sqlite_where=_gold,
    postgresql_where=_gold,
)

leases = Table(
    "leases",
    metadata,
    _number(),
    _digest("lease_id", unique=True),
    _digest("task_id", ForeignKey("tasks.task_id")),
    Column("annotator_id", AnyText, nullable=False),
    Column("expire_us", BigInteger, nullable=False),
    Column("ended", Boolean(create_constraint=False), nullable=False),
    Column("annotator_kind", SmallInteger, nullable=False, server_default=text("0")),
    Column("leased_us", BigInteger, nullable=False, server_default=text("0")),
    # How the lease ended; see rows.LeaseRow.
    Column("outcome", SmallInteger, nullable=False, server_default=text("0")),
    Index(None, "task_id", "annotator_id"),
    Index(None, "annotator_id"),
    sqlite_autoincrement=True,
)

feedback = Table(
    "feedback",
    metadata,
    _number(),
    _digest("feedback_id", unique=True),
    _digest("prompt_id", ForeignKey("prompts.prompt_id")),
    Column("annotator_id", AnyText, nullable=False),
    Column("annotator_kind", SmallInteger, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("judgement", Text, nullable=False),
    Column("completion_ids", Text, nullable=False),
    _digest("task_id", ForeignKey("tasks.task_id"), nullable=True),
    Column("queue", AnyText, nullable=False),
    Column("source", AnyText, nullable=False),
    Column("label", AnyText, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("late", Boolean(create_constraint=False), nullable=False),
    Column("split", SmallInteger, nullable=False),
    _digest("record_digest"),
    Column("comment", AnyText, nullable=False, server_default=""),
    # Canonical JSON of a list of ratings; empty if there are none.
    Column("criteria", Text, nullable=False, server_default=""),
    _digest("supersedes", nullable=True),
    # NULL: active; empty: retracted; otherwise the feedback that corrects it. The only column here that changes.
    _digest("superseded_by", nullable=True),
    Column("elapsed_us", BigInteger, nullable=True),
    Column("gold", Boolean(create_constraint=False), nullable=False, server_default=false()),
    Index(None, "record_digest"),
    Index(None, "queue"),
    Index(None, "annotator_id"),
    sqlite_autoincrement=True,
)

# At most one active answer of an annotator to a task. Feedback without a task has NULL there and is not limited.
_active = feedback.c.superseded_by.is_(None)
Index(
    "uq_feedback_in_force",
    feedback.c.task_id,
    feedback.c.annotator_id,
    unique=True,
    sqlite_where=_active,
    postgresql_where=_active,
)

annotators = Table(
    "annotators",
    metadata,
    Column("annotator_id", AnyText, primary_key=True),
    Column("kind", SmallInteger, primary_key=True, autoincrement=False),
    Column("display_name", AnyText, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("reason", AnyText, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("state_us", BigInteger, nullable=False),
)

flags = Table(
    "flags",
    metadata,
    _number(),
    _digest("task_id", ForeignKey("tasks.task_id")),
    Column("annotator_id", AnyText, nullable=False),
    Column("annotator_kind", SmallInteger, nullable=False),
    Column("reason", SmallInteger, nullable=False),
    Column("comment", AnyText, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    UniqueConstraint("task_id", "annotator_id"),
    sqlite_autoincrement=True,
)

# Prompts themselves never change, and existing snapshots keep them.
deleted_prompts = Table(
    "deleted_prompts",
    metadata,
    Column("prompt_id", Digest, ForeignKey("prompts.prompt_id"), primary_key=True),
    Column("deleted_us", BigInteger, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    _number(),
    _digest("digest", unique=True),
    Column("kind", SmallInteger, nullable=False),
    Column("train_records", BigInteger, nullable=False),
    Column("heldout_records", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("filter", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

# `member` is the number of a prompt or of feedback, depending on the snapshot's kind; those rows never change.
snapshot_members = Table(
    "snapshot_members",
    metadata,
    Column("snapshot", Number, ForeignKey("snapshots.number"), primary_key=True),
    Column("position", Number, primary_key=True),
    Column("member", Number, nullable=False),
    Column("split", SmallInteger, nullable=False),
    sqlite_with_rowid=False,
)

requests = Table(
    "requests",
    metadata,
    Column("request_id", AnyText, primary_key=True),
    _digest("content"),
    Column("response", LargeBinary, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

facts = Table(
    "facts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
