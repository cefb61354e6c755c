"""Schemas that are brought up to date before their services start: `python -m accord_<service>.migrate`.

A service migrates its database itself when it starts, or, told `--migrations awaited`, waits until somebody has: in a
cluster a Job, once, with a user who may change tables.
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
    """The schema is up to date when this returns. FailedPrecondition: DATABASE_REVISION where it is newer than this
    version knows, DATABASE_BEHIND where nobody has brought it up within `settings.migration_seconds`."""
    if settings.migrations == "on-start":
        await migrate(url, package)
    else:
        await _wait(url, package, settings.migration_seconds)


def run_migration(name: str, settings_type: type[S], url_of: Callable[[S], str]) -> None:
    """The main function of `python -m accord_<name>.migrate`: brings the database up to date, says so and ends. Waits
    for a database that is not there yet. Exit code 2 for a bad setting, 1 where it cannot be done."""
    settings = begin(name, settings_type)
    url, package = url_of(settings), f"accord_{name}"
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    try:
        before, after = asyncio.run(_migrate(url, package, settings.migration_seconds))
    except AccordError as error:
        sys.exit(f"accord_{name}: {error.message} [{error.reason}]")
    except KeyboardInterrupt:
        sys.exit(130)
    came = "was there already" if before.found == after.found else f"before: {before.found or 'nothing'}"
    print(f"accord_{name}: the database {after.database} is at revision {after.found} ({came})", flush=True)


async def _migrate(url: str, package: str, seconds: float) -> tuple[Revision, Revision]:
    before = await _reached(url, package, time.monotonic() + seconds)
    await migrate(url, package)
    return before, await revision_of(url, package)


async def _wait(url: str, package: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    told = ""
    while True:
        revision = await _reached(url, package, deadline)
        if revision.found == revision.wanted:
            return
        behind = (
            f"the database {revision.database} is at revision {revision.found or 'none'} of {package}, and this "
            f"version needs {revision.wanted}: run `python -m {package}.migrate`, or give --migrations on-start"
        )
        if time.monotonic() >= deadline:
            raise FailedPrecondition(
                f"{behind}; waited {seconds:g} s",
                reason="DATABASE_BEHIND",
                metadata={"found": revision.found, "wanted": revision.wanted},
            )
        if behind != told:
            log.warning("waiting: %s", behind)
            told = behind
        await asyncio.sleep(POLL_SECONDS)


async def _reached(url: str, package: str, deadline: float) -> Revision:
    """The revision, once the database answers. Unavailable where it does not until `deadline`."""
    while True:
        try:
            return await revision_of(url, package)
        except Unavailable as error:
            if time.monotonic() >= deadline:
                raise
            log.warning("waiting: %s", error)
            await asyncio.sleep(POLL_SECONDS)
