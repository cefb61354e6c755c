"""Migrates database schemas with alembic, from the scripts in each package's `migrations/` folder."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Engine, MetaData, create_engine

from accord.errors import FailedPrecondition
from accord_runtime.database.dialects.dialect import Dialect, parse
from accord_runtime.database.transactions import friendly_errors

if TYPE_CHECKING:
    from alembic.config import Config

# Alembic keeps its migration context in module globals, so a process runs one migration at a time.
_migrating = threading.Lock()


@dataclass(frozen=True)
class Revision:
    """The state of a schema: the revision `found` ("": none yet), the revision that this version of the package needs
    (`wanted`), and the name of the `database` for messages."""

    database: str
    found: str
    wanted: str


async def migrate(url: str, package: str, *, revision: str = "head") -> None:
    """Brings the database to `revision` of the alembic scripts in `package`'s folder `migrations/`.

    It uses one transaction, so that the schema is unchanged if the process is killed. Runs in a thread. Raises
    FailedPrecondition if a newer version of the package created the database.
    """
    await asyncio.to_thread(_run_alembic, url, package, revision, "upgrade")


async def revision_of(url: str, package: str) -> Revision:
    """The revision of the schema of `package`. FailedPrecondition, DATABASE_REVISION, if a newer version created it."""
    return await asyncio.to_thread(_read_revision, url, package)


async def downgrade(url: str, package: str, *, revision: str = "base") -> None:
    """Returns the database to `revision`; `base` removes every table of the package with its content."""
    await asyncio.to_thread(_run_alembic, url, package, revision, "downgrade")


def run_migrations(metadata: MetaData) -> None:
    """Runs the requested migrations on the connection of `migrate` or `downgrade`, in its transaction. This is the body
    of every package's migrations/env.py.

    `metadata`: the tables as the code expects them, for comparison by `alembic revision --autogenerate`.
    """
    from alembic import context

    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        version_table=context.config.attributes.get("version_table", "alembic_version"),
        render_as_batch=True,
        transactional_ddl=True,
    )
    context.run_migrations()


def _run_alembic(url: str, package: str, revision: str, change: Literal["upgrade", "downgrade"]) -> None:
    with _alembic(url, package) as (config, engine, dialect):
        from alembic import command
        from alembic.util import CommandError

        options: dict[str, Any] = dialect.writer_options(steady=False)
        try:
            with engine.connect().execution_options(**options) as connection, connection.begin():
                dialect.lock_migrations(connection)
                config.attributes["connection"] = connection
                (command.upgrade if change == "upgrade" else command.downgrade)(config, revision)
        except CommandError as error:
            raise _other_version(dialect.name(engine.url), package, revision, str(error)) from error


def _read_revision(url: str, package: str) -> Revision:
    with _alembic(url, package) as (config, engine, dialect):
        from alembic.migration import MigrationContext
        from alembic.script import ScriptDirectory

        scripts = ScriptDirectory.from_config(config)
        wanted = scripts.get_current_head() or ""
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": config.attributes["version_table"]})
            found = context.get_current_revision() or ""
        database = dialect.name(engine.url)
        if found and found not in {script.revision for script in scripts.walk_revisions()}:
            raise _other_version(database, package, wanted, f"it is at revision {found}")
        return Revision(database, found, wanted)


@contextmanager
def _alembic(url: str, package: str) -> Iterator[tuple[Config, Engine, Dialect]]:
    """Alembic's configuration for `package` and an engine for `url`; only one caller at a time."""
    # Set before the import, because alembic logs every plugin and every access to a database.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic.config import Config

    parsed, dialect = parse(url)
    parsed = dialect.synchronous(parsed)
    with _migrating, friendly_errors(parsed, dialect), as_file(files(package) / "migrations") as folder:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        # The path separator keeps alembic from splitting folders at spaces.
        config.set_main_option("path_separator", "os")
        config.attributes["version_table"] = dialect.version_table(package)
        engine = create_engine(parsed, **dialect.engine_options)
        try:
            dialect.prepare(engine, parsed)
            yield config, engine, dialect
        finally:
            engine.dispose()


def _other_version(database: str, package: str, revision: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the database {database} cannot be migrated to revision {revision} of {package}: {why}. "
        "Did a newer version of Accord create it? Use that version, or another database",
        reason="DATABASE_REVISION",
        metadata={"database": database},
    )
