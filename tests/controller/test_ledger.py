"""The ledger: what is recorded is durable, whole, recorded once, and never silently something else."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from tests.support.controller import add_run, database, open_recorder, open_store

from accord.errors import AlreadyExists, DataLoss
from accord.types import v1 as types_v1
from accord_controller.ledger.ledger import Ledger, parse_messages, serialize_messages, unnamed_files
from accord_controller.ledger.recorder import NewEvent
from accord_runtime.database.migrate import downgrade, migrate

pytestmark = pytest.mark.process


def samples(count: int, text: str = "hello") -> list[types_v1.Sample]:
    return [types_v1.Sample(index=index, text=text * (index + 1), logprobs=[-0.5]) for index in range(count)]


def test_messages_come_back_as_they_were_written() -> None:
    long = [types_v1.Sample(text="x" * 100_000), types_v1.Sample(), *samples(3)]
    assert parse_messages(serialize_messages(long), types_v1.Sample) == long
    assert parse_messages(serialize_messages([]), types_v1.Sample) == []


async def test_recorded_experience_survives_and_is_read_back_by_another_process(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await add_run(store)
        recorder = await open_recorder(store, tmp_path)
        await recorder.record_all("1/policy/00001/experience", types_v1.Sample, samples(4))
        await recorder.record("1/weights", types_v1.WeightsRef(uri="file:///x", digest="d", version=3))
    async with open_store(tmp_path) as store:
        ledger = await Ledger.load(store, "demo", tmp_path)
        assert await ledger.read("1/policy/00001/experience", types_v1.Sample) == samples(4)
        assert ledger.need("1/weights", types_v1.WeightsRef).version == 3
        assert await ledger.read("1/policy/00002/experience", types_v1.Sample) is None


async def test_a_fact_is_recorded_once_and_a_refused_commit_changes_nothing(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await add_run(store)
        recorder = await open_recorder(store, tmp_path)
        rival = await open_recorder(store, tmp_path)
        await recorder.record("1/a", types_v1.WeightsRef(digest="first"))
        before = await store.get_run("demo")
        entries = [rival.ledger.message_entry(key, types_v1.WeightsRef(digest="second")) for key in ("1/b", "1/a")]
        with pytest.raises(AlreadyExists, match="1/a of run demo is already recorded"):
            await rival.record_entries(entries, NewEvent("step", "must not be seen"))
        ledger = await Ledger.load(store, "demo", tmp_path)
        assert ledger.names() == ["1/a"]
        assert ledger.need("1/a", types_v1.WeightsRef).digest == "first"
        assert await store.events("demo", 0, 10) == []
        assert (await store.get_run("demo")).etag == before.etag


async def test_a_damaged_or_missing_experience_file_is_an_error_and_not_data(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await add_run(store)
        recorder = await open_recorder(store, tmp_path)
        await recorder.record_all("1/x", types_v1.Sample, samples(2))
        (file,) = recorder.ledger.files()
        whole = file.read_bytes()
        file.write_bytes(whole[:-1])
        with pytest.raises(DataLoss, match="is damaged"):
            await recorder.ledger.read("1/x", types_v1.Sample)
        file.unlink()
        with pytest.raises(DataLoss, match="is missing"):
            await recorder.ledger.read("1/x", types_v1.Sample)
        file.write_bytes(whole)
        assert await recorder.ledger.read("1/x", types_v1.Sample) == samples(2)
        with pytest.raises(DataLoss, match=r"not a accord\.types\.v1\.WeightsRef"):
            recorder.ledger.get("1/x", types_v1.WeightsRef)


KILLED = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from accord.types import v1 as types_v1
from accord_controller.store.store import Store
from tests.support.controller import open_recorder, open_store

async def main():
    folder = Path({folder!r})
    async with open_store(folder) as store:
        recorder = await open_recorder(store, folder)
        await recorder.record_all("1/one", types_v1.Sample, [types_v1.Sample(text="kept")])
        async def die(*_):
            os.kill(os.getpid(), 9)
        store.commit = die
        await recorder.record_all("1/two", types_v1.Sample, [types_v1.Sample(text="not recorded")])

asyncio.run(main())
"""


async def test_a_kill_between_file_and_record_leaves_the_fact_unrecorded(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await add_run(store)
    root = str(Path(__file__).parents[2])
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED.format(root=root, folder=str(tmp_path)))
    assert await killed.wait() == -9
    async with open_store(tmp_path) as store:
        recorder = await open_recorder(store, tmp_path)
        assert recorder.ledger.names() == ["1/one"]
        (orphan,) = unnamed_files(tmp_path, recorder.ledger.files())
        assert "two" in orphan.name
        # The same fact again, as a resumed run records it.
        await recorder.record_all("1/two", types_v1.Sample, [types_v1.Sample(text="not recorded")])
        assert unnamed_files(tmp_path, recorder.ledger.files()) == []


async def test_forgetting_and_recording_anew_happen_together(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await add_run(store)
        recorder = await open_recorder(store, tmp_path)
        for key in ("1/a", "1/b", "1/c"):
            await recorder.record(key, types_v1.WeightsRef(digest=key))
        entry = recorder.ledger.message_entry("1/b", types_v1.WeightsRef(digest="anew"))
        await recorder.record_entries([entry], forget=["1/b", "1/c"])
        again = await open_recorder(store, tmp_path)
        assert again.ledger.names() == recorder.ledger.names() == ["1/a", "1/b"]
        assert again.ledger.need("1/b", types_v1.WeightsRef).digest == "anew"


async def test_the_schema_is_what_the_code_says_and_can_be_taken_back(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import create_engine, inspect

    from accord_controller.store.tables import metadata

    url = database(tmp_path)
    await migrate(url, "accord_controller")
    engine = create_engine(url.replace("+aiosqlite", ""))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    await downgrade(url, "accord_controller")
    assert set(inspect(engine).get_table_names()) <= {"alembic_version"}
    engine.dispose()
