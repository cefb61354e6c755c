"""The controller's schema, over both databases: each step up and down works and keeps what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import Connection
from tests.support.controller import add_model, add_run, controller_client
from tests.support.postgresql import Postgres

import accord_controller
from accord.controller import v1 as controller_v1
from accord_controller.store.store import Commit, Entry, Store
from accord_controller.store.tables import metadata
from accord_runtime.database.migrate import downgrade, migrate
from accord_runtime.database.transactions import open_database

pytestmark = pytest.mark.process

PACKAGE = "accord_controller"


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


def revisions() -> list[str]:
    """Every revision of the schema, oldest first."""
    config = Config()
    config.set_main_option("script_location", str(Path(str(accord_controller.__path__[0])) / "migrations"))
    config.set_main_option("path_separator", "os")
    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]


async def fill(url: str, folder: Path) -> None:
    """A run with an event, a fact, and three models that its gate promoted."""
    await migrate(url, PACKAGE)
    store = Store(open_database(url))
    await add_run(store)
    for iteration in range(3):
        await add_model(store, folder, iteration)
    usage = controller_v1.StageUsage(cpu_seconds={"trainer": 2.5})
    entry = Entry("1/collect/result", "accord.controller.v1.IterationResult", b"", None, "d")
    event = controller_v1.RunEvent(kind="step")
    await store.commit("demo", Commit(stage_usage=usage, entries=[entry], events=[event]))
    await store.close()


async def test_every_step_down_and_up_keeps_runs_events_facts_and_models(
    url: str, connection: Connection, tmp_path: Path
) -> None:
    await fill(url, tmp_path)
    steps = revisions()
    for revision in steps[-2::-1]:
        await downgrade(url, PACKAGE, revision=revision)
    left = set(inspect(connection).get_table_names())
    connection.rollback()
    assert "model_changes" not in left
    for revision in steps:
        await migrate(url, PACKAGE, revision=revision)
    store = Store(open_database(url))
    try:
        assert [run.run_id for run in (await store.list_runs(9))[0]] == ["demo"]
        assert [event.kind for event in await store.events("demo", 0, 9)] == ["step"]
        assert [entry.key for entry in await store.entries("demo")] == ["1/collect/result"]
        assert not (await store.stage_usage("demo")).cpu_seconds  # what the older schema had no place for
    finally:
        await store.close()
    # The history of what is in force begins with what the gate has promoted.
    rows = connection.execute(text("SELECT model, previous, kind, time FROM model_changes ORDER BY number"))
    found = [tuple(row) for row in rows]
    connection.rollback()
    assert found == [("demo-0", "", 1, None), ("demo-1", "demo-0", 1, None), ("demo-2", "demo-1", 1, None)]
    async with controller_client(tmp_path / "next", database_url=url) as client:
        assert (await client.models.roll_back("demo")).name == "demo-1"


async def test_down_to_nothing_and_up_again(url: str, connection: Connection, tmp_path: Path) -> None:
    await fill(url, tmp_path)
    await downgrade(url, PACKAGE, revision="base")
    left = set(inspect(connection).get_table_names())
    connection.rollback()
    assert not left - {"alembic_version", f"alembic_version_{PACKAGE}"}
    await migrate(url, PACKAGE)
    assert set(metadata.tables) <= set(inspect(connection).get_table_names())


async def test_migrations_make_the_tables_that_the_code_knows(url: str, connection: Connection) -> None:
    await migrate(url, PACKAGE)
    version = {f"alembic_version_{PACKAGE}", "alembic_version"}
    context = MigrationContext.configure(
        connection, opts={"include_name": lambda name, kind, _: kind != "table" or name not in version}
    )
    assert compare_metadata(context, metadata) == []
