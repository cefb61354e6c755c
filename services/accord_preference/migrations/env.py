"""Run by alembic; see accord_runtime.database.migrate."""

from accord_preference.storage.sql.tables import metadata
from accord_runtime.database.migrate import run_migrations

run_migrations(metadata)
