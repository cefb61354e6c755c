"""The history of active models. It begins with the models that the gates have promoted so far, at unknown times."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "model_changes",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("run_id", sa.String(63), nullable=False),
        sa.Column("model", sa.String(100), nullable=False),
        sa.Column("previous", sa.String(100), nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("operator", sa.String(200), nullable=False),
        sa.Column("reason", sa.String(2000), nullable=False),
        sa.Column("request_id", sa.String(200), nullable=True),
        sa.Column("time", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name="fk_model_changes_run_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("number", name="pk_model_changes"),
        sa.UniqueConstraint("request_id", name="uq_model_changes_request_id"),
    )
    op.create_index("ix_model_changes_run_id", "model_changes", ["run_id"])
    op.execute(
        "INSERT INTO model_changes (run_id, model, previous, kind, operator, reason) "
        "SELECT run_id, name, COALESCE((SELECT earlier.name FROM models AS earlier "
        "WHERE earlier.run_id = models.run_id AND earlier.number < models.number "
        "ORDER BY earlier.number DESC LIMIT 1), ''), 1, '', '' FROM models ORDER BY number"
    )


def downgrade() -> None:
    op.drop_table("model_changes")
