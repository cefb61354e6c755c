"""What every package's migrations/env.py runs."""

from __future__ import annotations

from alembic import context
from sqlalchemy import MetaData


def run_migrations(metadata: MetaData) -> None:
    """Runs the asked for migrations over the connection that `connect` opened, in its transaction.

    `metadata` describes the tables as the code wants them, for comparison by `alembic revision --autogenerate`.
    """
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        version_table=context.config.attributes.get("version_table", "alembic_version"),
        render_as_batch=True,
        transactional_ddl=True,
    )
    context.run_migrations()
