"""Databases under services: durable settings, one writer at a time, migrations up and down, errors that help."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from accord.errors import DataLoss, FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from accord_preference.storage.sql.tables import metadata
from accord_runtime.database.dialects import sqlite
from accord_runtime.database.migrate import downgrade, migrate
from accord_runtime.database.transactions import open_database, reading, writing

PACKAGE = "accord_preference"


def tables_of(path: Path) -> set[str]:
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        return {row[0] for row in found}


async def test_migration_goes_up_from_empty_and_down_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "data.db"
    await migrate(f"sqlite:///{path}", PACKAGE)
    assert tables_of(path) == set(metadata.tables) | {"alembic_version"}
    await migrate(f"sqlite:///{path}", PACKAGE)
    await downgrade(f"sqlite:///{path}", PACKAGE)
    assert tables_of(path) == {"alembic_version"}
    await migrate(f"sqlite:///{path}", PACKAGE)
    assert tables_of(path) == set(metadata.tables) | {"alembic_version"}


async def test_several_starts_at_once_migrate_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'data.db'}"
    await asyncio.gather(*(migrate(url, PACKAGE) for _ in range(4)))
    assert "prompts" in tables_of(tmp_path / "data.db")


async def test_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    await migrate(f"sqlite:///{path}", PACKAGE)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(FailedPrecondition, match="newer version") as caught:
        await migrate(f"sqlite:///{path}", PACKAGE)
    assert caught.value.reason == "DATABASE_REVISION"


async def test_sqlite_is_durable_and_checks_foreign_keys(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'data.db'}")
    async with reading(engine) as connection:
        found = [
            (await connection.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    await engine.dispose()
    assert found == ["wal", 2, 1, 30_000]


async def test_reader_sees_one_state_while_others_write(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'data.db'}")
    async with writing(engine) as connection:
        await connection.execute(text("CREATE TABLE t (x INTEGER)"))
    async with reading(engine) as reader:
        assert (await reader.execute(text("SELECT count(*) FROM t"))).scalar() == 0
        async with writing(engine) as writer:
            await writer.execute(text("INSERT INTO t VALUES (1)"))
        assert (await reader.execute(text("SELECT count(*) FROM t"))).scalar() == 0
    async with reading(engine) as reader:
        assert (await reader.execute(text("SELECT count(*) FROM t"))).scalar() == 1
    await engine.dispose()


async def test_lock_of_another_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.db"
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("BEGIN IMMEDIATE")
    engine = open_database(f"sqlite:///{path}")
    with pytest.raises(Unavailable, match="locked") as caught:
        async with writing(engine):
            raise AssertionError("got the lock")
    assert caught.value.reason == "DATABASE_LOCKED"
    other.close()
    async with writing(engine) as connection:
        await connection.execute(text("CREATE TABLE t (x INTEGER)"))
    await engine.dispose()


async def test_full_disk_is_told_and_nothing_kept(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'data.db'}")
    async with writing(engine) as connection:
        await connection.execute(text("CREATE TABLE t (x BLOB)"))

    async def fill() -> None:
        async with writing(engine) as connection:
            # SQLite reports a file at its page limit exactly as it reports a full disk.
            await connection.execute(text("PRAGMA max_page_count = 10"))
            for _ in range(100):
                await connection.execute(text("INSERT INTO t VALUES (zeroblob(4000))"))

    with pytest.raises(ResourceExhausted) as caught:
        await fill()
    assert caught.value.reason == "DISK_FULL"
    async with reading(engine) as connection:
        assert (await connection.execute(text("SELECT count(*) FROM t"))).scalar() == 0
    await engine.dispose()


async def test_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    path.write_text("a letter to a friend" * 200)
    with pytest.raises(DataLoss, match=r"data\.db is not an Accord database"):
        await migrate(f"sqlite:///{path}", PACKAGE)
    assert path.read_text().startswith("a letter")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "nonsense"])
def test_url_that_cannot_serve_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="database_url"):
        open_database(url)
