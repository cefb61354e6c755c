"""What every store must do with tasks: who gets which, and when they end."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter

import pytest
from tests.support.stores import DONE, FLAGGED_STATE, a_judgement, a_task, fill, live, name

from accord_preference.storage.store import CANCELLED as CANCELLED_LEASE
from accord_preference.storage.store import (
    SKIPPED,
    Filter,
    FlagRow,
    LeaseRow,
    Store,
)
from accord_runtime.serving.idempotency import retrying

pytestmark = pytest.mark.process


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


async def test_tasks_come_by_turn_and_queues_by_prefix(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        await tx.add_tasks([a_task(1, queue="run/1"), a_task(2, queue="run/2")._replace(turn=-5), a_task(3, queue="x")])

        async def offered(queue: str) -> int | None:
            task = await tx.next_task("ann", queue, 0)
            return None if task is None else int(task.task_id[1:])

        assert [await offered(queue) for queue in ("", "run/", "run/1", "run", "x/")] == [2, 2, 1, None, None]
        assert (await tx.queue("run/", 0, 0)).open_tasks == 2
        assert (await tx.queue("run/", 0, 0)).wanted_feedback == 2


async def test_gold_tasks_are_answered_by_any_number_and_counted_apart(store: Store) -> None:
    await fill(store)
    async with store.writing() as tx:
        await tx.add_tasks([a_task(1)._replace(gold='{"tolerance":null,"value":{}}'), a_task(2)])
        for number, annotator in enumerate(("ann", "bob", "cid")):
            gold = await tx.next_task(annotator, "q", 0, gold=True)
            assert gold is not None
            assert gold.task_id == name("t", 1)
            await tx.add_feedback([a_judgement(number, annotator=annotator, task=1, queue="q")._replace(gold=True)])
            await tx.count_answer(name("t", 1))
            assert await tx.next_task(annotator, "q", 0, gold=True) is None
        ordinary = await tx.next_task("dan", "q", 0)
        assert ordinary is not None
        assert ordinary.task_id == name("t", 2)
        counts = await tx.queue("q", 0, 0)
        assert (counts.open_tasks, counts.gold_tasks, counts.feedback) == (1, 1, 0)
        assert [row.known is not None async for row in tx.judged(Filter())] == [True] * 3
        assert await live(tx) == []
        assert len(await live(tx, Filter(include_gold=True))) == 3


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
