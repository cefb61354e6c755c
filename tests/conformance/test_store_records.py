"""What every store must do with records: snapshots, what matches now, and what of it counts."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.stores import HELDOUT, OPEN, TRAIN, a_judgement, a_prompt, a_task, fill, live, name

from accord_preference.storage.store import (
    PREFERENCES,
    PROMPTS,
    RETRACTED,
    AnnotatorRow,
    CompletionRow,
    Filter,
    History,
    SnapshotRow,
    Store,
)

pytestmark = pytest.mark.process


@pytest.mark.parametrize("kind", [PROMPTS, PREFERENCES])
async def test_snapshot_keeps_its_records_in_canonical_order(store: Store, kind: int) -> None:
    await fill(store)

    async def grow(start: int) -> None:
        async with store.writing() as tx:
            await tx.add_prompts([a_prompt(n, HELDOUT if n % 3 == 0 else TRAIN) for n in range(start, start + 10)])
            await tx.add_feedback([a_judgement(n) for n in range(start, start + 10)])

    await grow(1)
    async with store.writing() as tx:
        digests = [digest async for digest, _ in tx.record_digests(kind, Filter())]
        assert digests == sorted(digests)
        await tx.add_snapshot(SnapshotRow(name("s", 1), kind, 9, 2, 77, b"f"), Filter())
    await grow(11)
    async with store.reading() as tx:
        snapshot = await tx.snapshot(name("s", 1))
        assert snapshot is not None
        assert (snapshot.kind, snapshot.train_records, snapshot.created_us, snapshot.filter) == (kind, 9, 77, b"f")
        seen: list[str] = []
        after: tuple[int | str, ...] = ()
        while page := await tx.snapshot_page(snapshot, after, 4, 0):
            assert len(page) <= 4
            seen += [(row.feedback or row.prompt).record_digest for row in page]
            after = page[-1].position
            if kind == PREFERENCES:
                assert [answer.completion_id for answer in page[0].completions] == [name("c", 1), name("c", 0)]
        assert seen == digests
        held = await tx.snapshot_page(snapshot, (), 99, HELDOUT)
        assert {row.prompt.split for row in held} <= {HELDOUT}
        assert len(held) == (3 if kind == PROMPTS else 0)


async def test_live_records_are_those_that_match_in_canonical_order(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        await tx.add_feedback([a_judgement(n, label="odd" if n % 2 else "even", queue=f"q{n % 3}") for n in range(9)])

        async def matching(filter_: Filter) -> list[int]:
            return [int(row.feedback.feedback_id[1:]) for row in await live(tx, filter_) if row.feedback]

        assert await matching(Filter()) == list(range(8, -1, -1))
        assert await matching(Filter(sources=("odd",))) == [7, 5, 3, 1]
        assert await matching(Filter(sources=("odd", "even"), queues=("q1",))) == [7, 4, 1]
        assert await matching(Filter(annotator_kinds=(2,))) == []
        assert await matching(Filter(split=HELDOUT)) == []
        # What the numbers name stays readable, in any order, whatever becomes of it.
        numbers = list(await tx.record_numbers(PREFERENCES, Filter(queues=("q1",))))
        await tx.add_feedback([a_judgement(n) for n in range(9, 12)])
        await tx.supersede(name("f", 4), RETRACTED)
        kept = await tx.records(PREFERENCES, numbers[::-1])
        assert [int(row.feedback.feedback_id[1:]) for row in kept if row.feedback] == [1, 4, 7]
        assert [answer.completion_id for answer in kept[0].completions] == [name("c", 1), name("c", 0)]
        assert await tx.records(PREFERENCES, []) == []


async def test_records_with_equal_digests_are_all_kept(store: Store) -> None:
    await fill(store)
    twins = [a_judgement(n)._replace(record_digest=name("r", 0)) for n in range(5)]
    async with store.writing() as tx:
        await tx.add_feedback(twins)
        assert len(await live(tx)) == 5


async def test_snapshots_list_newest_first(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        for number in range(5):
            await tx.add_snapshot(SnapshotRow(name("s", number), PROMPTS, 1, 0, number, b""), Filter())
        first = await tx.list_snapshots(0, 2)
        rest = await tx.list_snapshots(first[-1].number, 9)
    assert [int(row.digest[1:]) for row in first + rest] == [4, 3, 2, 1, 0]


async def test_stats_count_by_label_split_and_kind(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        await tx.add_feedback([a_judgement(1), a_judgement(2), a_judgement(3, label="x")])
        stats = await tx.stats()
    assert stats.feedback == {("s", TRAIN, 1): 2, ("x", TRAIN, 1): 1}
    assert stats.judgements == {1: 3}
    assert (stats.prompts, stats.completions) == (1, 2)


async def test_superseded_feedback_leaves_what_is_new_and_stays_in_what_is_old(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        await tx.add_tasks([a_task(1)])
        await tx.add_feedback([a_judgement(1, task=1, queue="q"), a_judgement(2)])
        await tx.count_answer(name("t", 1))
        await tx.add_snapshot(SnapshotRow(name("s", 1), PREFERENCES, 2, 0, 1, b""), Filter())
        await tx.supersede(name("f", 1), RETRACTED)
        await tx.uncount_answer(name("t", 1))
        task = await tx.task(name("t", 1))
        assert task is not None
        assert (task.state, task.answers) == (OPEN, 0)
        assert await tx.answer(name("t", 1), "ann") is None
        retracted = await tx.retracted(name("t", 1), "ann")
        assert retracted is not None
        assert retracted.superseded_by == RETRACTED
        # A correction that was under way meanwhile finds nothing to correct; an answer given anew takes its place.
        assert not await tx.supersede(name("f", 1), name("f", 3))
        assert await tx.supersede(name("f", 1), name("f", 3), retracted=True)
        # Another answer to the same task is allowed now, and the history holds both.
        await tx.add_feedback([a_judgement(3, task=1, queue="q")])
        history = await tx.list_feedback(History(task_id=name("t", 1)), 0, 9)
        assert [row.feedback_id for _, row in history] == [name("f", 3), name("f", 1)]
        in_force = await live(tx)
        assert [row.feedback.feedback_id for row in in_force if row.feedback] == [name("f", 3), name("f", 2)]
        snapshot = await tx.snapshot(name("s", 1))
        assert snapshot is not None
        assert len(await tx.snapshot_page(snapshot, (), 9, 0)) == 2
        assert await tx.corrected([]) == {("ann", 1): 1}
        assert (await tx.stats()).judgements == {1: 2}


async def test_inactive_annotators_and_deleted_prompts_are_in_no_new_record(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        await tx.add_prompts([a_prompt(1)])
        await tx.add_feedback([a_judgement(1), a_judgement(2, annotator="bob"), a_judgement(3, 1)])
        await tx.add_tasks([a_task(1), a_task(2)._replace(prompt_id=name("p", 1))])
        await tx.meet([("ann", 1), ("bob", 1), ("bob", 2), ("ann", 1)], 7)
        await tx.put_annotator(AnnotatorRow("bob", 1, "Bob", 2, "why", 7, 8))
        assert await tx.annotator("bob", 1) == AnnotatorRow("bob", 1, "Bob", 2, "why", 7, 8)
        listed = await tx.list_annotators(("ann", 1), 9, 0, 0)
        assert [(row.annotator_id, row.kind) for row in listed] == [("bob", 1), ("bob", 2)]
        assert len(await tx.list_annotators(("", 0), 9, 0, 2)) == 1
        assert await tx.counts(["ann", "bob"]) == {("ann", 1): 2, ("bob", 1): 1}
        assert await tx.delete_prompts([name("p", 1), name("p", 1)], 9) == (1, 1)
        assert await tx.delete_prompts([name("p", 1)], 9) == (0, 0)
        assert await tx.deleted([name("p", 0), name("p", 1)]) == {name("p", 1)}
        found = await live(tx)
        assert [row.feedback.feedback_id for row in found if row.feedback] == [name("f", 1)]
        assert [row.prompt_id for row in await tx.list_prompts("", 9, 0, "")] == [name("p", 0)]


async def test_a_snapshot_tells_who_and_what_is_in_it(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        made = CompletionRow(name("c", 7), name("p", 0), "by a model", '{"run_id":"r","seed":3}', finish_reason=2)
        await tx.add_completions([made])
        assert (await tx.completions([made.completion_id]))[made.completion_id] == made
        judged = a_judgement(2, annotator="bob")._replace(completion_ids=(name("c", 0), name("c", 7)))
        await tx.add_feedback([a_judgement(1), judged])
        await tx.add_snapshot(SnapshotRow(name("s", 1), PREFERENCES, 2, 0, 1, b""), Filter())
        await tx.add_snapshot(SnapshotRow(name("s", 2), PROMPTS, 1, 0, 1, b""), Filter())
        first, second = await tx.snapshot(name("s", 1)), await tx.snapshot(name("s", 2))
        assert first is not None
        assert second is not None
        found = await tx.snapshot_origins(first)
        assert (found.annotators, found.sources, found.prompts) == ({("ann", 1): 1, ("bob", 1): 1}, {"s": 2}, 1)
        assert dict(found.completions) == {None: 2, '{"run_id": "r", "seed": 0}': 1}
        assert (await tx.snapshot_origins(second)).sources == {"s": 1}

        async def uses(**subject: Any) -> list[tuple[int, int]]:
            return [(row.number, count) for row, count in await tx.snapshot_uses(**subject)]

        assert await uses(annotator=("bob", 1)) == [(first.number, 1)]
        assert await uses(annotator=("bob", 2)) == []
        assert await uses(prompt_id=name("p", 0)) == [(second.number, 1), (first.number, 2)]
        assert await uses(completion_id=name("c", 7)) == [(first.number, 1)]
        assert await tx.lengths([name("c", 7)]) == {name("c", 7): 10}
