"""Schemas: every released one can be brought to the newest with all that is in it, and each step up and down works."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import Connection
from tests.support.postgresql import Postgres
from tests.support.preference_service import Desk, pair, person

import accord_preference
from accord.preference import v1 as preference_v1
from accord_preference.settings import PreferenceSettings
from accord_preference.storage.sql.tables import metadata
from accord_runtime.database.migrate import downgrade, migrate

pytestmark = pytest.mark.process

FOLDER = Path(__file__).parent / "released"
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


def released(revision: str, url: str) -> Path:
    """The database that a version with this schema left."""
    return FOLDER / f"{revision}.{'sqlite' if url.startswith('sqlite') else 'postgresql'}.sql"


@asynccontextmanager
async def served(url: str, folder: Path) -> AsyncIterator[Desk]:
    """The service on a database that may be older than it."""
    desk = await Desk(PreferenceSettings(state_dir=folder, database_url=url)).start()
    try:
        yield desk
    finally:
        await desk.stop()


async def test_every_schema_was_kept_as_it_was_released() -> None:
    kept = {path.name for path in FOLDER.glob("*.sql")}
    assert kept == {f"{revision}.{dialect}.sql" for revision in revisions() for dialect in ("sqlite", "postgresql")}


async def test_the_first_released_database_is_brought_up_with_all_that_is_in_it(url: str, tmp_path: Path) -> None:
    restore(released("0001", url), url)
    async with served(url, tmp_path) as desk:
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


@pytest.mark.parametrize("revision", [name for name in revisions() if name > "0001"])
async def test_a_released_database_with_annotators_is_brought_up_with_all_that_is_in_it(
    revision: str, url: str, tmp_path: Path
) -> None:
    restore(released(revision, url), url)
    cut = 1 if revision >= "0004" else 0
    async with served(url, tmp_path) as desk:
        await check_kept(desk, cut)
        # Answered and corrected, with what was said beside it; taken back; skipped by nobody; gold.
        listed = preference_v1.ListFeedbackRequest(annotator=person("ann"), queue="q")
        corrected, first = (await desk.stub.ListFeedback(listed, timeout=10)).feedback
        assert (first.superseded_by, corrected.supersedes) == (corrected.feedback_id, first.feedback_id)
        assert corrected.comment == "looked again"
        assert [(one.criterion, one.value) for one in corrected.criteria] == [("helpful", 4)]
        request = preference_v1.ListFeedbackRequest(annotator=person("bob"))
        assert sorted(one.retracted for one in (await desk.stub.ListFeedback(request, timeout=10)).feedback) == [0, 1]
        flags = (await desk.stub.ListFlags(preference_v1.ListFlagsRequest(), timeout=10)).flags
        assert {(one.annotator.annotator_id, one.comment) for one in flags} == {
            ("bob", "what is meant?"),
            ("eve", "what is meant?"),
        }
        found = await desk.stub.GetQueue(preference_v1.GetQueueRequest(queue="gold"), timeout=10)
        assert found.gold_tasks == 1
        kept = preference_v1.ListAnnotatorsRequest(state=preference_v1.ANNOTATOR_STATE_EXCLUDED)
        (eve,) = (await desk.annotators.ListAnnotators(kept, timeout=10)).profiles
        assert (eve.annotator.annotator_id, eve.reason) == ("eve", "by chance")
        desk.now += 61  # cid's lease is over
        lease = await desk.lease("dora")
        assert lease is not None
        await desk.answer(lease, "dora")


async def check_kept(desk: Desk, cut: int) -> None:
    """What is in a database of 0002 and later is there, and in the snapshots that were made of it then. `cut`: records
    of an answer that was cut off."""
    stats = await desk.stats()
    assert (stats.prompts, stats.completions, stats.ratings) == (11 + cut, 22 + 2 * cut, 1)
    known = (await desk.stub.ListSnapshots(preference_v1.ListSnapshotsRequest(), timeout=10)).snapshots
    made = {snapshot.kind: snapshot for snapshot in known}
    prompts, feedback = made[preference_v1.SNAPSHOT_KIND_PROMPTS], made[preference_v1.SNAPSHOT_KIND_PREFERENCES]
    assert len(await desk.export(prompts.digest)) == 10 + cut
    records = await desk.export(feedback.digest)
    assert len(records) == 6 + cut
    assert {record.feedback.annotator.annotator_id for record in records} == {"ann", "bob", "zoé"}
    assert "a \t b\0\x1f" in {answer.text for record in records for answer in record.completions}
    # A snapshot is named by what is in it: everything is as it was.
    assert (await desk.snapshot()).digest == feedback.digest
    assert (await desk.snapshot(preference_v1.SNAPSHOT_KIND_PROMPTS)).digest == prompts.digest


async def test_a_full_database_goes_down_and_up_again_with_all_that_the_older_schema_can_hold(
    url: str, connection: Connection, tmp_path: Path
) -> None:
    newest = revisions()[-1]
    restore(released(newest, url), url)
    # Back to what 0002 to 0004 have in common, nothing is lost but why answers ended.
    await downgrade(url, PACKAGE, revision="0002")
    await migrate(url, PACKAGE)
    async with served(url, tmp_path) as desk:
        stats = await desk.stats()
        assert (stats.prompts, stats.completions, stats.comparisons) == (12, 24, 9)
        assert len((await desk.stub.ListFlags(preference_v1.ListFlagsRequest(), timeout=10)).flags) == 2
        names = [
            one.digest
            for one in (await desk.stub.ListSnapshots(preference_v1.ListSnapshotsRequest(), timeout=10)).snapshots
        ]
        before = {name: await desk.export(name) for name in names}
    # The first schema knows no annotators and nothing that was taken back: what was said stays, in its snapshots too.
    await downgrade(url, PACKAGE, revision="0001")
    kept = connection.exec_driver_sql("SELECT count(*) FROM feedback").scalar_one()
    connection.rollback()
    async with served(url, tmp_path) as desk:
        listed = (await desk.stub.ListFeedback(preference_v1.ListFeedbackRequest(page_size=1000), timeout=10)).feedback
        assert len(listed) == kept
        for name, records in before.items():
            now = await desk.export(name)
            assert [record.feedback.feedback_id for record in now] == [
                record.feedback.feedback_id for record in records
            ]
            assert [record.completions for record in now] == [record.completions for record in records]


async def test_every_step_up_and_down_works(url: str, connection: Connection) -> None:
    steps = revisions()
    for revision in steps:
        await migrate(url, PACKAGE, revision=revision)
    for revision in [*steps[-2::-1], "base"]:
        await downgrade(url, PACKAGE, revision=revision)
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
