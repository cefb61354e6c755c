"""Indexes that find the next task among millions: gold tasks alone, and tasks of any queue."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

GOLD = sa.text("gold IS NOT NULL")


def upgrade() -> None:
    """Adds the indexes."""
    columns = ["state", "queue", "turn", "number"]
    op.create_index("ix_tasks_gold", "tasks", columns, sqlite_where=GOLD, postgresql_where=GOLD)
    op.create_index("ix_tasks_state_turn_number", "tasks", ["state", "turn", "number"])


def downgrade() -> None:
    """Removes them."""
    op.drop_index("ix_tasks_state_turn_number", table_name="tasks")
    op.drop_index("ix_tasks_gold", table_name="tasks")
