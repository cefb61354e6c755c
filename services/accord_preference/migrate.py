"""`python -m accord_preference.migrate`: upgrades the database to the current schema and exits.

It takes the service's flags and environment."""

from accord_preference.service import database_of
from accord_preference.settings import PreferenceSettings
from accord_runtime.database.schema import run_migration

if __name__ == "__main__":
    run_migration("preference", PreferenceSettings, database_of)
