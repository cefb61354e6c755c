"""Schemas: every released one can be brought to the newest with all that is in it, and each step up and down works."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from preference_desk import Desk, pair
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import Connection

import accord_preference
from accord_preference.settings import PreferenceSettings
from accord_preference.tables import metadata
from accord_runtime import database
from accord_runtime.testing.postgresql import Postgres

RELEASED = sorted((Path(__file__).parent / "released").glob("*.sql"))
PROMPTS = "5bf2d947a841b9f9638c5ab954596f1cb906656468dc8727313bdcd9807fb0b7"
FEEDBACK = "23f0a2c88d7c71c32a650d40d10e44c8074918e96f4bce29ec00f7530431e3bf"
PACKAGE = "accord_preference"


def revisions() -> list[str]:
    """Every revision of the schema, oldest first."""
    config = Config()
    config.set_main_option("script_location", str(Path(str(accord_preference.__path__[0])) / "migrations"))
    config.set_main_option("path_separator", "os")
    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/data.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.fresh()


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    engine = create_engine(url)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def restore(path: Path, url: str) -> None:
    """Runs a file of SQL in an empty database."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as lite:
            lite.executescript(path.read_text())
        return
    with psycopg.connect(url) as post:
        post.execute(path.read_text().encode())


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
async def test_released_database_is_brought_up_with_all_that_is_in_it(
    path: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dialect = path.stem.split(".")[1]
    url = f"sqlite:///{tmp_path}/old.db" if dialect == "sqlite" else request.getfixturevalue("postgres").fresh()
    restore(path, url)
    desk = await Desk(PreferenceSettings(state_dir=tmp_path, database_url=url)).start()
    try:
        stats = await desk.stats()
        assert (stats.prompts, stats.completions, stats.comparisons, stats.ratings) == (7, 14, 5, 1)
        assert len(await desk.export(PROMPTS)) == 7
        kept = await desk.export(FEEDBACK)
        assert len(kept) == 6
        assert {record.feedback.annotator.annotator_id for record in kept} == {"ann", "bob", "zoé"}
        assert (await desk.snapshot()).digest == FEEDBACK
        again = await desk.load([pair(1), pair(99)])
        assert (again.feedback, again.duplicates) == (1, 1)
        desk.now += 61  # cid's lease is over
        lease = await desk.lease("dora")
        assert lease is not None
        await desk.answer(lease, "dora")
    finally:
        await desk.stop()


async def test_every_step_up_and_down_works(url: str, connection: Connection) -> None:
    steps = revisions()
    for revision in steps:
        await database.migrate(url, PACKAGE, revision=revision)
    for revision in [*steps[-2::-1], "base"]:
        await database.downgrade(url, PACKAGE, revision=revision)
    left = set(inspect(connection).get_table_names())
    connection.rollback()
    assert not left - {"alembic_version", f"alembic_version_{PACKAGE}"}
    await database.migrate(url, PACKAGE)
    assert set(metadata.tables) <= set(inspect(connection).get_table_names())


async def test_migrations_make_the_tables_that_the_code_knows(url: str, connection: Connection) -> None:
    await database.migrate(url, PACKAGE)
    version = {f"alembic_version_{PACKAGE}", "alembic_version"}
    context = MigrationContext.configure(
        connection, opts={"include_name": lambda name, kind, _: kind != "table" or name not in version}
    )
    assert compare_metadata(context, metadata) == []
