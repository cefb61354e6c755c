"""`python -m accord_controller.migrate`: upgrades the database to the current schema and exits.

It takes the service's flags and environment."""

from accord_controller.service import database_of
from accord_controller.settings import ControllerSettings
from accord_runtime.database.schema import run_migration

if __name__ == "__main__":
    run_migration("controller", ControllerSettings, database_of)
