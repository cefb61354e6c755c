"""An export of what matches now is one state of the database, whatever others write while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.preference_service import pair

from accord.preference import v1 as preference_v1
from accord_preference.context import Context
from accord_preference.datasets.snapshots import Snapshots
from accord_preference.feedback.feedback import Feedback
from accord_preference.feedback.imports import Imports
from accord_preference.prompts import Prompts
from accord_preference.settings import PreferenceSettings
from accord_preference.storage.opening import open_store
from accord_preference.storage.store import Filter, Store

pytestmark = pytest.mark.process

PREFERENCES = preference_v1.SNAPSHOT_KIND_PREFERENCES


def url_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    if kind == "postgresql":
        return str(request.getfixturevalue("postgres").fresh())
    return f"sqlite:///{folder}/store.db"


async def load(context: Context, name: str, numbers: range) -> None:
    """Imports pairs."""

    async def stream() -> AsyncIterator[preference_v1.ImportRecordsRequest]:
        yield preference_v1.ImportRecordsRequest(request_id=name, records=[pair(number) for number in numbers])

    await Imports(context).import_records(stream())


async def numbers_of(store: Store) -> list[int]:
    async with store.reading() as tx:
        return list(await tx.record_numbers(PREFERENCES, Filter()))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_what_is_written_taken_back_and_deleted_meanwhile_changes_no_export(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    store = await open_store(url_of(kind, tmp_path, request))
    context = Context(store, PreferenceSettings(state_dir=tmp_path, page_records=4), lambda: 1e6)
    try:
        await load(context, "first", range(40))
        before = [record async for record in exported(context)]
        coming = exported(context)
        seen = [await anext(coming)]
        await load(context, "second", range(40, 80))
        last, middle = before[-1], before[20]
        await Feedback(context).retract(
            preference_v1.RetractFeedbackRequest(
                request_id="r", feedback_id=last.feedback.feedback_id, annotator=last.feedback.annotator
            )
        )
        await Prompts(context).delete(
            preference_v1.DeletePromptsRequest(request_id="d", prompt_ids=[middle.prompt.prompt_id])
        )
        seen += [record async for record in coming]
        assert seen == before
        assert len([record async for record in exported(context)]) == 78
    finally:
        await store.close()


async def test_what_commits_while_an_export_runs_is_not_in_it_though_its_numbers_are_lower(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In PostgreSQL rows are numbered before they are committed: a newest number bounds nothing."""
    store = await open_store(url_of("postgresql", tmp_path, request))
    context = Context(store, PreferenceSettings(state_dir=tmp_path, page_records=2), lambda: 1e6)
    go_on, stored = asyncio.Event(), asyncio.Event()
    try:
        await load(context, "known", range(1))
        [known] = [record async for record in exported(context)]

        async def slow() -> None:
            """A writer that has its numbers and has not committed."""
            async with store.writing() as tx:
                row = await tx.feedback(known.feedback.feedback_id)
                assert row is not None
                late = [
                    row._replace(feedback_id=f"late-{n}", record_digest=f"{n:064x}", annotator_id=f"late-{n}")
                    for n in range(16)
                ]
                await tx.add_feedback(late)
                stored.set()
                await go_on.wait()

        writer = asyncio.create_task(slow())
        await stored.wait()
        await load(context, "later", range(1, 30))
        before = await numbers_of(store)
        coming = exported(context)
        seen = [await anext(coming)]
        go_on.set()
        await writer
        seen += [record async for record in coming]
        assert len(seen) == len(before) == 30
        assert not [one for one in seen if one.feedback.annotator.annotator_id.startswith("late")]
        assert len(await numbers_of(store)) == 46
    finally:
        go_on.set()
        await store.close()


async def exported(context: Context) -> AsyncIterator[preference_v1.Record]:
    """Every preference that matches now, one by one."""
    async for page in Snapshots(context).export_records(preference_v1.ExportRecordsRequest(kind=PREFERENCES)):
        for record in page.records:
            yield record
