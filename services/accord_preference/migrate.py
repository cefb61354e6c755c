"""`python -m accord_preference.migrate`: brings the database up to date and ends.

It has the flags and environment of the service."""

from accord_preference.service import database_of
from accord_preference.settings import PreferenceSettings
from accord_runtime.database.schema import run_migration

if __name__ == "__main__":
    run_migration("preference", PreferenceSettings, database_of)
