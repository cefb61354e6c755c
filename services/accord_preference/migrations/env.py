"""Run by alembic, see accord_runtime.database.migrate."""

from accord_preference.tables import metadata
from accord_runtime.migrating import run_migrations

run_migrations(metadata)
