"""Who migrates a database: the service when it starts, or `python -m accord_<service>.migrate` before that.

With `--migrations awaited` a service waits until another process has migrated its database. In a cluster a Job does
this once, as a user that may change tables.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from accord.errors import AccordError, FailedPrecondition, Unavailable
from accord_runtime.database.migrate import Revision, migrate, revision_of
from accord_runtime.serving.main import begin
from accord_runtime.serving.settings import DatabaseSettings

log = logging.getLogger(__name__)
POLL_SECONDS = 1.0
S = TypeVar("S", bound=DatabaseSettings)


async def bring_up(url: str, package: str, settings: DatabaseSettings) -> None:
    """Migrates the schema, or waits until it is migrated, depending on `settings`. FailedPrecondition:
    DATABASE_REVISION if a newer version created it, DATABASE_BEHIND if it is not migrated within
    `settings.migration_seconds`."""
    if settings.migrations == "on-start":
        await migrate(url, package)
    else:
        await _wait(url, package, settings.migration_seconds)


def run_migration(name: str, settings_type: type[S], url_of: Callable[[S], str]) -> None:
    """The main function of `python -m accord_<name>.migrate`: waits for the database, migrates it and prints its
    revision. Exits with code 2 for an invalid setting, and with 1 if the migration fails."""
    settings = begin(name, settings_type)
    url, package = url_of(settings), f"accord_{name}"
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    try:
        before, after = asyncio.run(_migrate(url, package, settings.migration_seconds))
    except AccordError as error:
        sys.exit(f"accord_{name}: {error.message} [{error.reason}]")
    except KeyboardInterrupt:
        sys.exit(130)
    came = "unchanged" if before.found == after.found else f"before: {before.found or 'none'}"
    print(f"accord_{name}: the database {after.database} is at revision {after.found} ({came})", flush=True)


async def _migrate(url: str, package: str, seconds: float) -> tuple[Revision, Revision]:
    before = await _reached(url, package, time.monotonic() + seconds)
    await migrate(url, package)
    return before, await revision_of(url, package)


async def _wait(url: str, package: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    logged = ""
    while True:
        revision = await _reached(url, package, deadline)
        if revision.found == revision.wanted:
            return
        behind = (
            f"the database {revision.database} is at revision {revision.found or 'none'} of {package}, but this "
            f"version needs {revision.wanted}. Run `python -m {package}.migrate`, or set --migrations on-start"
        )
        if time.monotonic() >= deadline:
            raise FailedPrecondition(
                f"{behind}; waited {seconds:g} s",
                reason="DATABASE_BEHIND",
                metadata={"found": revision.found, "wanted": revision.wanted},
            )
        if behind != logged:
            log.warning("waiting: %s", behind)
            logged = behind
        await asyncio.sleep(POLL_SECONDS)


async def _reached(url: str, package: str, deadline: float) -> Revision:
    """Waits until the database answers and returns the revision. Unavailable if it does not answer before
    `deadline`."""
    while True:
        try:
            return await revision_of(url, package)
        except Unavailable as error:
            if time.monotonic() >= deadline:
                raise
            log.warning("waiting: %s", error)
            await asyncio.sleep(POLL_SECONDS)
