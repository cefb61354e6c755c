"""Migrations by a process of their own: the database is up to date after it, and services told to wait serve then."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from tests.support.postgresql import Postgres

from accord.errors import FailedPrecondition, Unavailable
from accord_preference.service import build
from accord_preference.settings import PreferenceSettings
from accord_runtime.database import schema
from accord_runtime.database.migrate import migrate

pytestmark = pytest.mark.process

SERVICES = ("preference", "controller")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/data.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.fresh()


def revisions(package: str) -> list[str]:
    """Every revision of a package's schema, oldest first."""
    config = Config()
    config.set_main_option("script_location", str(Path("services") / package / "migrations"))
    config.set_main_option("path_separator", "os")
    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]


def command(module: str, url: str, folder: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", module, "--database-url", url, "--state-dir", str(folder), *flags]


def run_job(name: str, url: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """The Job, in a process of its own, from another folder than the repository's."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ACCORD_")}
    return subprocess.run(
        command(f"accord_{name}.migrate", url, folder, *flags),
        capture_output=True, text=True, timeout=60, env=environment, check=False, cwd=folder,
    )  # fmt: skip


@pytest.mark.parametrize("name", SERVICES)
def test_the_job_brings_a_database_up_to_date_and_says_so_and_a_second_one_changes_nothing(
    name: str, url: str, tmp_path: Path
) -> None:
    newest = revisions(f"accord_{name}")[-1]
    first = run_job(name, url, tmp_path)
    assert first.returncode == 0, first.stderr
    assert f"is at revision {newest} (before: nothing)" in first.stdout
    second = run_job(name, url, tmp_path)
    assert second.returncode == 0, second.stderr
    assert f"is at revision {newest} (was there already)" in second.stdout


def read_until(stream: IO[str], wanted: str) -> list[str]:
    """Lines up to the one with `wanted`; a failure with all that was written where none comes."""
    said: list[str] = []
    for line in stream:
        said.append(line)
        if wanted in line:
            return said
    pytest.fail(f"ended without {wanted!r}:\n{''.join(said)}")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_told_to_wait_serves_once_the_job_is_done_and_never_before(
    name: str, url: str, tmp_path: Path
) -> None:
    package = f"accord_{name}"
    asyncio.run(migrate(url, package, revision=revisions(package)[0]))
    service = subprocess.Popen(
        command(package, url, tmp_path, "--migrations", "awaited"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert service.stdout is not None
        waiting = read_until(service.stdout, "waiting:")
        assert f"is at revision {revisions(package)[0]} of {package}" in waiting[-1]
        assert f"python -m {package}.migrate" in waiting[-1]
        done = run_job(name, url, tmp_path)
        assert done.returncode == 0, done.stderr
        read_until(service.stdout, f"{package} serving at")
        threading.Thread(target=service.stdout.read, daemon=True).start()
        service.terminate()
        assert service.wait(30) == 0
    finally:
        service.kill()
        service.wait()


async def test_a_service_that_waited_in_vain_names_both_revisions_and_what_to_run(url: str, tmp_path: Path) -> None:
    settings = PreferenceSettings(state_dir=tmp_path, database_url=url, migrations="awaited", migration_seconds=0)
    with pytest.raises(FailedPrecondition, match=r"revision none of accord_preference.*python -m") as raised:
        await build(settings)
    assert raised.value.reason == "DATABASE_BEHIND"
    assert raised.value.metadata == {"found": "", "wanted": revisions("accord_preference")[-1]}


async def test_a_newer_schema_than_this_version_knows_is_refused_by_the_service_and_by_the_job(
    url: str, tmp_path: Path
) -> None:
    await migrate(url, "accord_preference")
    table = "alembic_version" if url.startswith("sqlite") else "alembic_version_accord_preference"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {table} SET version_num = '9999'"))
    engine.dispose()
    settings = PreferenceSettings(state_dir=tmp_path, database_url=url, migrations="awaited")
    with pytest.raises(FailedPrecondition, match="newer version of Accord") as raised:
        await build(settings)
    assert raised.value.reason == "DATABASE_REVISION"
    job = run_job("preference", url, tmp_path)
    assert job.returncode == 1
    assert "9999" in job.stderr
    assert "newer version of Accord" in job.stderr
    assert "Traceback" not in job.stderr


async def test_a_database_that_is_not_there_is_waited_for_and_then_named(tmp_path: Path) -> None:
    settings = PreferenceSettings(
        state_dir=tmp_path,
        database_url="postgresql://accord:secret@127.0.0.1:1/nowhere",
        migrations="awaited",
        migration_seconds=1.5,
    )
    with pytest.raises(Unavailable, match=r"nowhere at 127\.0\.0\.1") as raised:
        await schema.bring_up(settings.database_url, "accord_preference", settings)
    assert "secret" not in str(raised.value)


def test_the_job_leaves_with_one_line_where_the_database_is_not_there(tmp_path: Path) -> None:
    url = "postgresql://accord:secret@127.0.0.1:1/nowhere"
    job = run_job("preference", url, tmp_path, "--migration-seconds", "0")
    assert job.returncode == 1
    assert job.stderr.strip().splitlines()[-1].endswith("[DATABASE_ERROR]")
    assert "secret" not in job.stderr
