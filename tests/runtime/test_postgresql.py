"""PostgreSQL under services: one state for readers, conflicts that may be repeated, errors that help, and a test server
that is gone with the tests."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.postgresql import Postgres

from accord.errors import Aborted, FailedPrecondition, InvalidArgument, Unavailable
from accord_runtime.database.migrate import downgrade, migrate
from accord_runtime.database.transactions import open_database, reading, writing

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
async def engine(postgres: Postgres) -> AsyncIterator[AsyncEngine]:
    opened = open_database(postgres.fresh())
    async with writing(opened) as connection:
        await connection.execute(text("CREATE TABLE t (x INTEGER PRIMARY KEY, y INTEGER)"))
        await connection.execute(text("INSERT INTO t VALUES (1, 0), (2, 0)"))
    yield opened
    await opened.dispose()


async def test_reader_sees_one_state_while_others_write(engine: AsyncEngine) -> None:
    async with reading(engine) as reader:
        assert (await reader.execute(text("SELECT count(*) FROM t"))).scalar() == 2
        async with writing(engine) as writer:
            await writer.execute(text("INSERT INTO t VALUES (3, 0)"))
        assert (await reader.execute(text("SELECT count(*) FROM t"))).scalar() == 2
    async with reading(engine) as reader:
        assert (await reader.execute(text("SELECT count(*) FROM t"))).scalar() == 3


async def test_what_others_added_meanwhile_is_a_conflict_that_may_be_repeated(engine: AsyncEngine) -> None:
    async def add() -> None:
        async with writing(engine) as connection:
            await connection.execute(text("INSERT INTO t VALUES (1, 0)"))

    with pytest.raises(Aborted) as caught:
        await add()
    assert caught.value.reason == "DATABASE_CONFLICT"


async def test_deadlock_ends_one_of_the_two_and_says_so(engine: AsyncEngine) -> None:
    async def change(first: int, then: int) -> bool:
        try:
            async with writing(engine) as connection:
                await connection.execute(text("UPDATE t SET y = y + 1 WHERE x = :x"), {"x": first})
                await met.wait()
                await connection.execute(text("UPDATE t SET y = y + 1 WHERE x = :x"), {"x": then})
        except Aborted as error:
            assert error.reason == "DATABASE_CONFLICT"  # noqa: PT017
            return False
        return True

    met = asyncio.Barrier(2)
    assert sorted(await asyncio.gather(change(1, 2), change(2, 1))) == [False, True]
    async with reading(engine) as reader:
        assert (await reader.execute(text("SELECT sum(y) FROM t"))).scalar() == 2


async def test_connections_that_the_server_ended_are_replaced(engine: AsyncEngine, postgres: Postgres) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'accord'")
    async with reading(engine) as reader:
        assert (await reader.execute(text("SELECT count(*) FROM t"))).scalar() == 2


async def test_connection_lost_in_a_transaction_is_told_and_nothing_kept(
    engine: AsyncEngine, postgres: Postgres
) -> None:
    async def add() -> None:
        async with writing(engine) as connection:
            await connection.execute(text("INSERT INTO t VALUES (3, 0)"))
            with psycopg.connect(postgres.url, autocommit=True) as other:
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'accord'"
                )
            await connection.execute(text("INSERT INTO t VALUES (4, 0)"))

    with pytest.raises(Unavailable):
        await add()
    async with reading(engine) as reader:
        assert (await reader.execute(text("SELECT count(*) FROM t"))).scalar() == 2


async def test_services_may_share_a_database(postgres: Postgres) -> None:
    url = postgres.fresh()
    packages = ["accord_preference", "accord_controller"]
    await asyncio.gather(*(migrate(url, package) for package in packages * 2))
    await downgrade(url, "accord_controller")
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()").fetchall()
    assert {"prompts", "feedback"} <= {row[0] for row in found}
    assert "runs" not in {row[0] for row in found}


async def test_server_or_database_or_user_that_is_not_there_is_told(postgres: Postgres) -> None:
    there = make_url(postgres.url)
    with pytest.raises(Unavailable, match="Is the server running"):
        await migrate(there.set(port=1).render_as_string(), "accord_preference")
    with pytest.raises(FailedPrecondition, match="createdb") as caught:
        await migrate(there.set(database="nowhere").render_as_string(), "accord_preference")
    assert caught.value.reason == "DATABASE_UNREACHABLE"
    with pytest.raises(FailedPrecondition, match="user, password"):
        await migrate(there.set(username="nobody").render_as_string(), "accord_preference")


def test_passwords_are_in_no_message() -> None:
    with pytest.raises(Unavailable) as caught:
        asyncio.run(migrate("postgresql://me:hush@127.0.0.1:1/data", "accord_preference"))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://", "postgresql+asyncpg://localhost/data", "mysql://localhost/data"])
def test_url_that_cannot_serve_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="database_url"):
        open_database(url)


def test_test_server_is_gone_when_its_tests_are_killed() -> None:
    code = (
        "from tests.support.postgresql import running\nimport time\n"
        "with running() as server:\n    print(server.server, server.folder, flush=True)\n    time.sleep(600)"
    )
    tests = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert tests.stdout is not None
    pid, folder = tests.stdout.readline().split()
    assert psutil.pid_exists(int(pid))
    os.kill(tests.pid, signal.SIGKILL)
    tests.wait()
    tests.stdout.close()
    deadline = time.monotonic() + 60
    while (psutil.pid_exists(int(pid)) or Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(int(pid))
    assert not Path(folder).exists()
