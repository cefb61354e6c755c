"""Run by alembic; see accord_runtime.migrating."""

from accord_controller.store.tables import metadata
from accord_runtime.migrating import run_migrations

run_migrations(metadata)
