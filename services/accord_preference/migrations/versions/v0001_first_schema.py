"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# PostgreSQL compares these by code point in every locale.
DIGEST = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Creates every table."""
    op.create_table(
        "facts",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_facts"),
    )
    op.create_table(
        "prompts",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("prompt_id", DIGEST, nullable=False),
        sa.Column("conversation", sa.Text(), nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("split", sa.SmallInteger(), nullable=False),
        sa.Column("record_digest", DIGEST, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_prompts"),
        sa.UniqueConstraint("prompt_id", name="uq_prompts_prompt_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_prompts_record_digest", "prompts", ["record_digest"], unique=False)
    op.create_table(
        "requests",
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("content", DIGEST, nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_requests"),
    )
    op.create_table(
        "snapshots",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("train_records", sa.BigInteger(), nullable=False),
        sa.Column("heldout_records", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("filter", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_snapshots"),
        sa.UniqueConstraint("digest", name="uq_snapshots_digest"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "completions",
        sa.Column("completion_id", DIGEST, nullable=False),
        sa.Column("prompt_id", DIGEST, nullable=False),
        sa.Column("text", TEXT, nullable=False),
        sa.Column("origin", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.prompt_id"], name="fk_completions_prompt_id"),
        sa.PrimaryKeyConstraint("completion_id", name="pk_completions"),
    )
    op.create_table(
        "snapshot_members",
        sa.Column("snapshot", NUMBER, nullable=False),
        sa.Column("position", NUMBER, nullable=False),
        sa.Column("member", NUMBER, nullable=False),
        sa.Column("split", sa.SmallInteger(), nullable=False),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.number"], name="fk_snapshot_members_snapshot"),
        sa.PrimaryKeyConstraint("snapshot", "position", name="pk_snapshot_members"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tasks",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("task_id", DIGEST, nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("prompt_id", DIGEST, nullable=False),
        sa.Column("completion_ids", sa.Text(), nullable=False),
        sa.Column("redundancy", sa.Integer(), nullable=False),
        sa.Column("queue", TEXT, nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("answers", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.prompt_id"], name="fk_tasks_prompt_id"),
        sa.PrimaryKeyConstraint("number", name="pk_tasks"),
        sa.UniqueConstraint("task_id", name="uq_tasks_task_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_tasks_queue", "tasks", ["queue"], unique=False)
    op.create_index("ix_tasks_state_queue_number", "tasks", ["state", "queue", "number"], unique=False)
    op.create_table(
        "feedback",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("feedback_id", DIGEST, nullable=False),
        sa.Column("prompt_id", DIGEST, nullable=False),
        sa.Column("annotator_id", TEXT, nullable=False),
        sa.Column("annotator_kind", sa.SmallInteger(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("judgement", sa.Text(), nullable=False),
        sa.Column("completion_ids", sa.Text(), nullable=False),
        sa.Column("task_id", DIGEST, nullable=True),
        sa.Column("queue", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("label", TEXT, nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("split", sa.SmallInteger(), nullable=False),
        sa.Column("record_digest", DIGEST, nullable=False),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.prompt_id"], name="fk_feedback_prompt_id"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name="fk_feedback_task_id"),
        sa.PrimaryKeyConstraint("number", name="pk_feedback"),
        sa.UniqueConstraint("feedback_id", name="uq_feedback_feedback_id"),
        sa.UniqueConstraint("task_id", "annotator_id", name="uq_feedback_task_id_annotator_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_feedback_queue", "feedback", ["queue"], unique=False)
    op.create_index("ix_feedback_record_digest", "feedback", ["record_digest"], unique=False)
    op.create_table(
        "leases",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("lease_id", DIGEST, nullable=False),
        sa.Column("task_id", DIGEST, nullable=False),
        sa.Column("annotator_id", TEXT, nullable=False),
        sa.Column("expire_us", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name="fk_leases_task_id"),
        sa.PrimaryKeyConstraint("number", name="pk_leases"),
        sa.UniqueConstraint("lease_id", name="uq_leases_lease_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_leases_annotator_id", "leases", ["annotator_id"], unique=False)
    op.create_index("ix_leases_task_id_annotator_id", "leases", ["task_id", "annotator_id"], unique=False)


def downgrade() -> None:
    """Removes every table with its content."""
    op.drop_table("leases")
    op.drop_table("feedback")
    op.drop_table("tasks")
    op.drop_table("snapshot_members")
    op.drop_table("completions")
    op.drop_table("snapshots")
    op.drop_table("requests")
    op.drop_table("prompts")
    op.drop_table("facts")
