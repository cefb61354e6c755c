"""The finish reason of an answer, which shows whether it was cut off. It is unknown for existing answers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the column."""
    op.add_column(
        "completions", sa.Column("finish_reason", sa.SmallInteger(), nullable=False, server_default=sa.text("0"))
    )


def downgrade() -> None:
    """Removes it."""
    op.drop_column("completions", "finish_reason")
