"""What the services used in a run's current stage."""

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
    # Not in a batch: SQLite would make the table anew, and what refers to the runs would go with the old one.
    op.drop_column("runs", "stage_usage")
