"""Annotators as a resource, gold and flagged tasks, corrected and retracted feedback, deleted prompts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# PostgreSQL compares these by code point in every locale.
DIGEST = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ZERO = sa.text("0")
IN_FORCE = sa.text("superseded_by IS NULL")


def upgrade() -> None:
    """Adds the new columns and tables; everyone who has judged becomes an active annotator."""
    op.add_column("tasks", sa.Column("gold", sa.Text(), nullable=True))
    op.add_column("tasks", sa.Column("turn", sa.Integer(), nullable=False, server_default=ZERO))
    op.add_column("tasks", sa.Column("form", sa.Text(), nullable=False, server_default=""))
    op.add_column("tasks", sa.Column("flags", sa.Integer(), nullable=False, server_default=ZERO))
    op.drop_index("ix_tasks_state_queue_number", table_name="tasks")
    op.create_index("ix_tasks_state_queue_turn_number", "tasks", ["state", "queue", "turn", "number"])
    op.add_column("leases", sa.Column("annotator_kind", sa.SmallInteger(), nullable=False, server_default=ZERO))
    op.add_column("leases", sa.Column("leased_us", sa.BigInteger(), nullable=False, server_default=ZERO))
    op.add_column("leases", sa.Column("outcome", sa.SmallInteger(), nullable=False, server_default=ZERO))
    with op.batch_alter_table("feedback", table_kwargs={"sqlite_autoincrement": True}) as feedback:
        feedback.add_column(sa.Column("comment", TEXT, nullable=False, server_default=""))
        feedback.add_column(sa.Column("criteria", sa.Text(), nullable=False, server_default=""))
        feedback.add_column(sa.Column("supersedes", DIGEST, nullable=True))
        feedback.add_column(sa.Column("superseded_by", DIGEST, nullable=True))
        feedback.add_column(sa.Column("elapsed_us", sa.BigInteger(), nullable=True))
        feedback.add_column(
            sa.Column("gold", sa.Boolean(create_constraint=False), nullable=False, server_default=sa.false())
        )
        feedback.drop_constraint("uq_feedback_task_id_annotator_id", type_="unique")
    op.create_index("ix_feedback_annotator_id", "feedback", ["annotator_id"])
    op.create_index(
        "uq_feedback_in_force",
        "feedback",
        ["task_id", "annotator_id"],
        unique=True,
        sqlite_where=IN_FORCE,
        postgresql_where=IN_FORCE,
    )
    op.create_table(
        "annotators",
        sa.Column("annotator_id", TEXT, nullable=False),
        sa.Column("kind", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("display_name", TEXT, nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("state_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("annotator_id", "kind", name="pk_annotators"),
    )
    op.execute(
        "INSERT INTO annotators (annotator_id, kind, display_name, state, reason, created_us, state_us) "
        "SELECT annotator_id, annotator_kind, '', 1, '', MIN(created_us), MIN(created_us) FROM feedback "
        "GROUP BY annotator_id, annotator_kind"
    )
    op.create_table(
        "flags",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("task_id", DIGEST, nullable=False),
        sa.Column("annotator_id", TEXT, nullable=False),
        sa.Column("annotator_kind", sa.SmallInteger(), nullable=False),
        sa.Column("reason", sa.SmallInteger(), nullable=False),
        sa.Column("comment", TEXT, nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name="fk_flags_task_id"),
        sa.PrimaryKeyConstraint("number", name="pk_flags"),
        sa.UniqueConstraint("task_id", "annotator_id", name="uq_flags_task_id_annotator_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "deleted_prompts",
        sa.Column("prompt_id", DIGEST, nullable=False),
        sa.Column("deleted_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.prompt_id"], name="fk_deleted_prompts_prompt_id"),
        sa.PrimaryKeyConstraint("prompt_id", name="pk_deleted_prompts"),
    )


def downgrade() -> None:
    """Reverts the change. The older schema allows one answer of an annotator to a task: a corrected or retracted answer
    is kept without its task, for the snapshots that contain it, and counts again."""
    op.drop_table("deleted_prompts")
    op.drop_table("flags")
    op.drop_table("annotators")
    op.execute("UPDATE feedback SET task_id = NULL WHERE superseded_by IS NOT NULL")
    op.drop_index("uq_feedback_in_force", table_name="feedback")
    op.drop_index("ix_feedback_annotator_id", table_name="feedback")
    with op.batch_alter_table("feedback", table_kwargs={"sqlite_autoincrement": True}) as feedback:
        for name in ("gold", "elapsed_us", "superseded_by", "supersedes", "criteria", "comment"):
            feedback.drop_column(name)
        feedback.create_unique_constraint("uq_feedback_task_id_annotator_id", ["task_id", "annotator_id"])
    for name in ("outcome", "leased_us", "annotator_kind"):
        op.drop_column("leases", name)
    op.drop_index("ix_tasks_state_queue_turn_number", table_name="tasks")
    for name in ("flags", "form", "turn", "gold"):
        op.drop_column("tasks", name)
    op.create_index("ix_tasks_state_queue_number", "tasks", ["state", "queue", "number"])
