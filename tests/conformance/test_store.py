"""What every store of the preference service must do. A new store joins by one entry in STORES."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from accord.errors import FailedPrecondition
from accord_preference.once import retrying
from accord_preference.store import (
    CANCELLED as CANCELLED_LEASE,
)
from accord_preference.store import (
    PREFERENCES,
    PROMPTS,
    RETRACTED,
    SKIPPED,
    AnnotatorRow,
    CompletionRow,
    FeedbackRow,
    Filter,
    FlagRow,
    History,
    LeaseRow,
    PromptRow,
    RequestRow,
    SnapshotRow,
    Store,
    TaskRow,
)
from accord_preference.stores import open_store
from accord_runtime.testing.postgresql import Postgres


def sqlite(folder: Path, _request: pytest.FixtureRequest) -> str:
    return f"sqlite:///{folder}/store.db"


def postgresql(_folder: Path, request: pytest.FixtureRequest) -> str:
    server: Postgres = request.getfixturevalue("postgres")
    return server.fresh()


STORES: dict[str, Callable[[Path, pytest.FixtureRequest], str]] = {"sqlite": sqlite, "postgresql": postgresql}
OPEN, DONE, CANCELLED, FLAGGED_STATE = 1, 2, 3, 4
TRAIN, HELDOUT = 1, 2


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return STORES[request.param](tmp_path, request)


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    opened = await open_store(url)
    yield opened
    await opened.close()


def name(kind: str, number: int) -> str:
    return f"{kind}{number:063d}"


def a_prompt(number: int, split: int = TRAIN, source: str = "s") -> PromptRow:
    # Canonical order is the reverse of the order of ids.
    return PromptRow(name("p", number), f'[["user","{number}"]]', source, split, name("r", 999 - number))


def an_answer(number: int, prompt: int) -> CompletionRow:
    return CompletionRow(name("c", number), name("p", prompt), f"text \0 {number} é 🎉", None)


def a_judgement(
    number: int, prompt: int = 0, *, annotator: str = "ann", task: int | None = None, label: str = "s", queue: str = ""
) -> FeedbackRow:
    return FeedbackRow(
        feedback_id=name("f", number),
        prompt_id=name("p", prompt),
        annotator_id=annotator,
        annotator_kind=1,
        kind=1,
        judgement="{}",
        completion_ids=(name("c", 1), name("c", 0)),
        task_id=None if task is None else name("t", task),
        queue=queue,
        source="",
        label=label,
        created_us=5,
        late=False,
        split=TRAIN,
        record_digest=name("r", 999 - number),
    )


def a_task(number: int, redundancy: int = 1, queue: str = "q") -> TaskRow:
    return TaskRow(name("t", number), 1, name("p", 0), (name("c", 0), name("c", 1)), redundancy, queue, OPEN)


async def fill(store: Store) -> None:
    async with store.writing() as tx:
        await tx.add_prompts([a_prompt(0)])
        await tx.add_completions([an_answer(0, 0), an_answer(1, 0)])


async def test_rows_come_back_as_they_went_in(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        await tx.add_tasks([a_task(1)])
        await tx.add_feedback([a_judgement(1, task=1, queue="q")])
    async with store.reading() as tx:
        assert await tx.prompts([name("p", 0), "gone"]) == {name("p", 0): a_prompt(0)}
        assert await tx.completions([name("c", 1)]) == {name("c", 1): an_answer(1, 0)}
        assert await tx.feedback(name("f", 1)) == a_judgement(1, task=1, queue="q")
        assert await tx.answer(name("t", 1), "ann") == a_judgement(1, task=1, queue="q")
        assert await tx.answer(name("t", 1), "bob") is None
        assert await tx.task(name("t", 1)) == a_task(1)
        assert await tx.task("gone") is None


async def test_adding_again_keeps_the_first_and_counts_only_new_ones(store: Store) -> None:
    async with store.writing() as tx:
        assert await tx.add_prompts([a_prompt(1), a_prompt(1, source="later"), a_prompt(2)]) == 2
        assert await tx.add_prompts([a_prompt(2, source="later"), a_prompt(3)]) == 1
        assert await tx.add_prompts([]) == 0
        kept = await tx.prompts([name("p", 1), name("p", 2)])
    assert {row.source for row in kept.values()} == {"s"}


async def test_more_rows_than_a_statement_takes(store: Store) -> None:
    many = [a_prompt(number) for number in range(1300)]
    async with store.writing() as tx:
        assert await tx.add_prompts(many) == 1300
        assert len(await tx.prompts([row.prompt_id for row in many])) == 1300


async def test_failed_transaction_keeps_nothing(store: Store) -> None:
    async def fail() -> None:
        async with store.writing() as tx:
            await tx.add_prompts([a_prompt(1)])
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    async with store.reading() as tx:
        assert not await tx.prompts([name("p", 1)])


async def test_cancelled_transaction_keeps_nothing_and_frees_the_lock(store: Store) -> None:
    inside = asyncio.Event()

    async def linger() -> None:
        async with store.writing() as tx:
            await tx.add_prompts([a_prompt(1)])
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.ensure_future(linger())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5), store.writing() as tx:
        assert not await tx.prompts([name("p", 1)])


async def test_writers_at_once_lose_and_double_nothing(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        await tx.add_tasks([a_task(1, redundancy=99)])

    async def add(start: int) -> int:
        async with store.writing() as tx:
            await tx.count_answer(name("t", 1))
            await asyncio.sleep(0)
            return await tx.add_prompts([a_prompt(n) for n in range(start, start + 10)])

    async def attempt(start: int) -> int:
        return await retrying(lambda: add(start))

    added = await asyncio.gather(*(attempt(100 + 5 * n) for n in range(20)))
    async with store.reading() as tx:
        assert sum(added) == 105
        assert (await tx.stats()).prompts == 106
        task = await tx.task(name("t", 1))
    assert task is not None
    assert task.answers == 20


async def test_one_of_several_conflicting_answers_is_kept_and_the_others_know(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        await tx.add_tasks([a_task(1)])

    async def answer(number: int) -> bool:
        async with store.writing() as tx:
            assert await tx.task(name("t", 1)) is not None
            if await tx.answer(name("t", 1), "ann") is not None:
                return False
            await asyncio.sleep(0)
            return await tx.add_feedback([a_judgement(number, task=1, queue="q")]) == 1

    assert sorted(await asyncio.gather(*(retrying(lambda n=n: answer(n)) for n in range(8)))) == [False] * 7 + [True]


async def test_places_of_tasks_are_never_given_twice(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        await tx.add_tasks([a_task(n, redundancy=1 + n % 3) for n in range(30)])

    async def lease(annotator: str) -> str | None:
        async with store.writing() as tx:
            task = await tx.next_task(annotator, "q", 0)
            if task is None:
                return None
            await asyncio.sleep(0)
            await tx.add_lease(LeaseRow(secrets.token_hex(), task.task_id, annotator, expire_us=10))
            return task.task_id

    async def work(annotator: str) -> list[str]:
        found = []
        while (task := await retrying(lambda: lease(annotator))) is not None:
            found.append(task)
        return found

    given = await asyncio.gather(*(work(f"ann{n}") for n in range(50)))
    counts = Counter(task for tasks in given for task in tasks)
    assert counts == {name("t", n): 1 + n % 3 for n in range(30)}
    assert all(len(set(tasks)) == len(tasks) for tasks in given)


async def test_steady_writer_reads_one_state(store: Store, url: str) -> None:
    await fill(store)
    entered = asyncio.Event()

    async def add() -> None:
        await entered.wait()
        async with store.writing() as tx:
            await tx.add_prompts([a_prompt(9)])

    adding = asyncio.ensure_future(add())
    async with store.writing(steady=True) as tx:
        assert (await tx.stats()).prompts == 1
        entered.set()
        await asyncio.wait([adding], timeout=0.2)
        assert (await tx.stats()).prompts == 1
    await adding
    async with store.reading() as tx:
        assert (await tx.stats()).prompts == 2


async def test_what_was_committed_is_there_when_opened_again(url: str) -> None:
    store = await open_store(url)
    async with store.writing() as tx:
        await tx.add_prompts([a_prompt(1)])
    await store.close()
    again = await open_store(url)
    async with again.reading() as tx:
        assert await tx.prompts([name("p", 1)])
    await again.close()


async def test_prompts_list_by_id_filtered(store: Store) -> None:
    async with store.writing() as tx:
        await tx.add_prompts([a_prompt(n, HELDOUT if n % 2 else TRAIN, "a" if n < 4 else "b") for n in range(8)])

        async def listed(after: str = "", limit: int = 99, split: int = 0, source: str = "") -> list[int]:
            return [int(row.prompt_id[1:]) for row in await tx.list_prompts(after, limit, split, source)]

        assert await listed(limit=3) == [0, 1, 2]
        assert await listed(after=name("p", 2), limit=2) == [3, 4]
        assert await listed(split=HELDOUT) == [1, 3, 5, 7]
        assert await listed(split=TRAIN, source="b") == [4, 6]


async def test_next_task_respects_holders_answers_state_and_queue(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        await tx.add_tasks([a_task(1, redundancy=2), a_task(2, queue="other")])

        async def offered(annotator: str, queue: str = "q", now: int = 0) -> int | None:
            task = await tx.next_task(annotator, queue, now)
            return None if task is None else int(task.task_id[1:])

        assert await offered("ann") == 1
        assert await offered("ann", "") == 1
        await tx.add_lease(LeaseRow("l1", name("t", 1), "ann", expire_us=10))
        assert await offered("ann") is None
        assert await offered("ann", "") == 2
        await tx.add_lease(LeaseRow("l2", name("t", 1), "bob", expire_us=20))
        assert await offered("cid") is None
        assert await offered("cid", now=10) == 1  # ann's has just ended
        assert await offered("ann", now=10) == 1
        await tx.end_lease("l2", SKIPPED)
        assert await offered("cid") == 1
        await tx.add_feedback([a_judgement(1, annotator="ann", task=1, queue="q")])
        await tx.count_answer(name("t", 1))
        assert await offered("ann", now=99) is None
        assert await offered("cid", now=99) == 1
        await tx.count_answer(name("t", 1))
        assert await offered("cid", now=99) is None
        done = await tx.task(name("t", 1))
        assert done is not None
        assert (done.state, done.answers) == (DONE, 2)


async def test_cancelling_ends_open_tasks_and_their_leases_only(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        await tx.add_tasks([a_task(1), a_task(2), a_task(3, queue="other")])
        await tx.count_answer(name("t", 1))
        await tx.add_lease(LeaseRow("l2", name("t", 2), "ann", expire_us=100))
        await tx.add_lease(LeaseRow("l3", name("t", 3), "ann", expire_us=100))
        assert (await tx.queue("q", 50, 0)).leased_tasks == 1
        assert await tx.cancel_tasks("q") == 1
        assert await tx.cancel_tasks("q") == 0
        ended, kept = await tx.lease("l2"), await tx.lease("l3")
        assert ended is not None
        assert kept is not None
        assert (ended.ended, kept.ended) == (True, False)
        counts = await tx.queue("q", 50, 0)
        assert (counts.open_tasks, counts.done_tasks, counts.cancelled_tasks, counts.leased_tasks) == (0, 1, 1, 0)


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


async def test_live_pages_stop_at_the_newest_and_filter(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        await tx.add_feedback([a_judgement(n, label="odd" if n % 2 else "even", queue=f"q{n % 3}") for n in range(9)])
        newest = await tx.newest(PREFERENCES)
        await tx.add_feedback([a_judgement(n) for n in range(9, 12)])

        async def pages(filter_: Filter) -> list[int]:
            found: list[int] = []
            after: tuple[int | str, ...] = ()
            while page := await tx.record_page(PREFERENCES, filter_, newest, after, 2):
                found += [int(row.feedback.feedback_id[1:]) for row in page if row.feedback]
                after = page[-1].position
            return found

        assert await pages(Filter()) == list(range(8, -1, -1))
        assert await pages(Filter(sources=("odd",))) == [7, 5, 3, 1]
        assert await pages(Filter(sources=("odd", "even"), queues=("q1",))) == [7, 4, 1]
        assert await pages(Filter(annotator_kinds=(2,))) == []
        assert await pages(Filter(split=HELDOUT)) == []


async def test_records_with_equal_digests_are_all_kept(store: Store) -> None:
    await fill(store)
    twins = [FeedbackRow(**(vars(a_judgement(n)) | {"record_digest": name("r", 0)})) for n in range(5)]
    async with store.writing() as tx:
        await tx.add_feedback(twins)
        after: tuple[int | str, ...] = ()
        seen = 0
        while page := await tx.record_page(PREFERENCES, Filter(), 99, after, 2):
            seen, after = seen + len(page), page[-1].position
        assert seen == 5


async def test_requests_are_remembered(store: Store) -> None:
    async with store.writing() as tx:
        await tx.remember(RequestRow("r", "digest", b"\x00answer"), 1)
    async with store.reading() as tx:
        assert await tx.request("r") == RequestRow("r", "digest", b"\x00answer")
        assert await tx.request("other") is None


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


async def test_split_is_pinned(store: Store) -> None:
    async with store.writing() as tx:
        await tx.pin_split(0.1, "salt")
    async with store.writing() as tx:
        await tx.pin_split(0.1, "salt")
        with pytest.raises(FailedPrecondition, match="change sides"):
            await tx.pin_split(0.1, "pepper")


async def test_tasks_come_by_turn_and_queues_by_prefix(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        await tx.add_tasks([a_task(1, queue="run/1"), replace(a_task(2, queue="run/2"), turn=-5), a_task(3, queue="x")])

        async def offered(queue: str) -> int | None:
            task = await tx.next_task("ann", queue, 0)
            return None if task is None else int(task.task_id[1:])

        assert [await offered(queue) for queue in ("", "run/", "run/1", "run", "x/")] == [2, 2, 1, None, None]
        assert (await tx.queue("run/", 0, 0)).open_tasks == 2
        assert (await tx.queue("run/", 0, 0)).wanted_feedback == 2


async def test_gold_tasks_are_answered_by_any_number_and_counted_apart(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        await tx.add_tasks([replace(a_task(1), gold='{"tolerance":null,"value":{}}'), a_task(2)])
        for number, annotator in enumerate(("ann", "bob", "cid")):
            gold = await tx.next_task(annotator, "q", 0, gold=True)
            assert gold is not None
            assert gold.task_id == name("t", 1)
            await tx.add_feedback([replace(a_judgement(number, annotator=annotator, task=1, queue="q"), gold=True)])
            await tx.count_answer(name("t", 1))
            assert await tx.next_task(annotator, "q", 0, gold=True) is None
        ordinary = await tx.next_task("dan", "q", 0)
        assert ordinary is not None
        assert ordinary.task_id == name("t", 2)
        counts = await tx.queue("q", 0, 0)
        assert (counts.open_tasks, counts.gold_tasks, counts.feedback) == (1, 1, 0)
        assert [row.known is not None async for row in tx.judged(Filter())] == [True] * 3
        assert await tx.record_page(PREFERENCES, Filter(), 99, (), 9) == []
        assert len(await tx.record_page(PREFERENCES, Filter(include_gold=True), 99, (), 9)) == 3


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
        live = await tx.record_page(PREFERENCES, Filter(), 99, (), 9)
        assert [row.feedback.feedback_id for row in live if row.feedback] == [name("f", 3), name("f", 2)]
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
        await tx.add_tasks([a_task(1), replace(a_task(2), prompt_id=name("p", 1))])
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
        found = await tx.record_page(PREFERENCES, Filter(), 99, (), 9)
        assert [row.feedback.feedback_id for row in found if row.feedback] == [name("f", 1)]
        assert [row.prompt_id for row in await tx.list_prompts("", 9, 0, "")] == [name("p", 0)]


async def test_flags_count_once_an_annotator_and_keep_the_task_from_them(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        await tx.add_tasks([a_task(1)])
        assert await tx.add_flag(FlagRow(name("t", 1), "ann", 1, 2, "odd", 5)) == 1
        assert await tx.add_flag(FlagRow(name("t", 1), "ann", 1, 3, "again", 6)) == 1
        assert await tx.next_task("ann", "q", 0) is None
        assert await tx.next_task("bob", "q", 0) is not None
        await tx.add_lease(LeaseRow("l", name("t", 1), "bob", 100, leased_us=1))
        held = await tx.held("bob", "q", 50)
        assert held is not None
        assert (held.lease_id, held.leased_us) == ("l", 1)
        await tx.renew_lease("l", 200)
        assert await tx.held("bob", "", 150) is not None
        await tx.set_task(name("t", 1), FLAGGED_STATE)
        assert await tx.held("bob", "q", 50) is None
        assert await tx.next_task("bob", "q", 0) is None
        [(flag, task)] = await tx.list_flags("q", 0, 9)
        assert (flag.reason, flag.comment, task.flags, task.state) == (2, "odd", 1, FLAGGED_STATE)
        assert await tx.outcomes(["q"]) == {("bob", 0): {CANCELLED_LEASE: 1}}


async def test_a_snapshot_tells_who_and_what_is_in_it(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        made = CompletionRow(name("c", 7), name("p", 0), "by a model", '{"run_id":"r","seed":3}', finish_reason=2)
        await tx.add_completions([made])
        assert (await tx.completions([made.completion_id]))[made.completion_id] == made
        judged = replace(a_judgement(2, annotator="bob"), completion_ids=(name("c", 0), name("c", 7)))
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
