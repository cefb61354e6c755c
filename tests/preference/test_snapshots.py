"""Snapshots: one digest for one content, never another content, the same bytes for ever, one split everywhere."""

from __future__ import annotations

import pytest
from tests.support.preference_service import Desk, pair, person

from accord.errors import FailedPrecondition, InvalidArgument, NotFound
from accord.preference import v1 as preference_v1
from accord_preference.service import build

pytestmark = pytest.mark.process

PROMPTS = preference_v1.SNAPSHOT_KIND_PROMPTS


async def test_digest_does_not_depend_on_order_time_or_database(desk: Desk, other_desk: Desk) -> None:
    await desk.load([pair(number) for number in range(30)])
    await other_desk.load([pair(number) for number in reversed(range(30))], size=7)
    assert (await desk.snapshot()).digest == (await other_desk.snapshot()).digest
    assert (await desk.snapshot(PROMPTS)).digest == (await other_desk.snapshot(PROMPTS)).digest


async def test_digest_does_not_depend_on_how_a_tie_was_written(desk: Desk, other_desk: Desk) -> None:
    for running, (one, two) in ((desk, "ab"), (other_desk, "ba")):
        record = pair(1)
        record.comparison.CopyFrom(preference_v1.Comparison(chosen_id=one, rejected_id=two, tie=True))
        await running.load([record])
    assert (await desk.snapshot()).digest == (await other_desk.snapshot()).digest


@pytest.mark.parametrize("change", ["verdict", "text", "annotator", "margin", "source", "kind"])
async def test_digest_differs_for_other_content(desk: Desk, other_desk: Desk, change: str) -> None:
    await desk.load([pair(1), pair(2)])
    record = pair(2)
    match change:
        case "verdict":
            record.comparison.chosen_id, record.comparison.rejected_id = "b", "a"
        case "text":
            record.completions[0].text += "!"
        case "annotator":
            record.annotator.CopyFrom(person("somebody else"))
        case "margin":
            record.comparison.margin = 1
        case "source":
            record.source = "elsewhere"
        case "kind":
            record.annotator.kind = preference_v1.ANNOTATOR_KIND_SIMULATED
    await other_desk.load([pair(1), record])
    assert (await desk.snapshot()).digest != (await other_desk.snapshot()).digest


async def test_export_stays_the_same_bytes_while_the_service_goes_on(desk: Desk) -> None:
    await desk.load([pair(number) for number in range(450)])  # more than two pages
    snapshot = await desk.snapshot()
    before = [record.SerializeToString(deterministic=True) for record in await desk.export(snapshot.digest)]
    assert len(before) == snapshot.train_records + snapshot.heldout_records == 450
    assert len(set(before)) == 450
    desk.now += 5
    await desk.load([pair(number, annotator="bob") for number in range(500)])
    await desk.stop()
    await desk.start()
    after = [record.SerializeToString(deterministic=True) for record in await desk.export(snapshot.digest)]
    assert after == before
    assert (await desk.snapshot()).digest != snapshot.digest


async def test_same_content_is_the_same_snapshot_and_stored_once(desk: Desk) -> None:
    await desk.load([pair(1)])
    first = await desk.snapshot()
    desk.now += 100
    again = await desk.snapshot(sources=["set"])
    assert again == first
    assert (await desk.stats()).snapshots == 1


async def test_split_is_by_prompt_and_the_same_in_every_snapshot(desk: Desk) -> None:
    records = [pair(number, annotator=name) for number in range(300) for name in ("ann", "bob")]
    await desk.load(records)
    preferences, prompts = await desk.snapshot(), await desk.snapshot(PROMPTS)
    sides = {}
    for digest in (preferences.digest, prompts.digest):
        for split in (preference_v1.SPLIT_TRAIN, preference_v1.SPLIT_HELDOUT):
            for record in await desk.export(digest, split):
                assert record.prompt.split == split
                assert sides.setdefault(record.prompt.prompt_id, split) == split
    assert len(sides) == 300
    assert (preferences.train_records, preferences.heldout_records) == (
        2 * prompts.train_records,
        2 * prompts.heldout_records,
    )
    assert 10 <= prompts.heldout_records <= 55  # a tenth of 300, give or take five standard deviations


async def test_database_refuses_another_split_than_it_was_made_with(desk: Desk) -> None:
    await desk.stop()
    settings = desk.settings.model_copy(update={"heldout_fraction": 0.2})
    with pytest.raises(FailedPrecondition) as caught:
        await build(settings)
    assert caught.value.reason == "SPLIT_CHANGED"
    await desk.start()


async def test_filters_take_what_they_say(desk: Desk) -> None:
    simulated = pair(3, "two")
    simulated.annotator.kind = preference_v1.ANNOTATOR_KIND_SIMULATED
    await desk.load([pair(1, "one"), pair(2, "two"), simulated])
    await desk.task("asked", queue="mine")
    lease = await desk.lease("ann", queue="mine")
    assert lease is not None
    await desk.answer(lease, "ann")

    async def texts(**filters: list[str] | list[int]) -> set[str]:
        snapshot = await desk.snapshot(**filters)  # type: ignore[arg-type]
        return {record.prompt.conversation.messages[0].content for record in await desk.export(snapshot.digest)}

    assert await texts(sources=["two"]) == {"question 2", "question 3"}
    assert await texts(sources=["one", "two"]) == {"question 1", "question 2", "question 3"}
    assert await texts(annotator_kinds=[preference_v1.ANNOTATOR_KIND_SIMULATED]) == {"question 3"}
    assert await texts(queues=["mine"]) == {"asked"}


async def test_live_export_holds_exactly_what_was_there_when_it_began(desk: Desk) -> None:
    await desk.load([pair(number) for number in range(600)])
    request = preference_v1.ExportRecordsRequest(kind=preference_v1.SNAPSHOT_KIND_PREFERENCES)
    seen: list[str] = []
    async for page in desk.stub.ExportRecords(request, timeout=60):
        if not seen:
            await desk.load([pair(number) for number in range(600, 700)])
        seen += [record.feedback.feedback_id for record in page.records]
    assert len(seen) == len(set(seen)) == 600


async def test_snapshots_page_newest_first(desk: Desk) -> None:
    made = []
    for number in range(5):
        await desk.load([pair(number)])
        made.append((await desk.snapshot()).digest)
    seen, token = [], ""
    while True:
        request = preference_v1.ListSnapshotsRequest(page_size=2, page_token=token)
        page = await desk.stub.ListSnapshots(request, timeout=10)
        seen += [snapshot.digest for snapshot in page.snapshots]
        token = page.next_page_token
        if not token:
            break
    assert seen == made[::-1]


async def test_snapshot_of_nothing_and_unknown_snapshot_are_errors(desk: Desk) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        await desk.snapshot()
    assert caught.value.reason == "EMPTY_SNAPSHOT"
    with pytest.raises(NotFound, match="snapshot 'beef' does not exist"):
        await desk.export("beef")


async def test_filter_that_prompts_cannot_have_is_refused(desk: Desk) -> None:
    with pytest.raises(InvalidArgument, match=r"filter\.queues"):
        await desk.snapshot(PROMPTS, queues=["q"])
