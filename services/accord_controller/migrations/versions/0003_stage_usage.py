"""The services' usage in a run's current stage."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("stage_usage", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    # Not in a batch: SQLite would recreate the table, and rows that refer to the runs would be deleted with the old
    # one.
    op.drop_column("runs", "stage_usage")
