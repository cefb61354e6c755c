"""What every store must keep: rows as they were, transactions whole or not at all, requests and the split."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.stores import HELDOUT, TRAIN, a_judgement, a_prompt, a_task, an_answer, fill, name

from accord.errors import FailedPrecondition
from accord_preference.storage.opening import open_store
from accord_preference.storage.store import (
    Store,
)
from accord_runtime.serving.idempotency import KeptResponse, retrying

pytestmark = pytest.mark.process


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


@pytest.mark.parametrize("others", [0, 100], ids=["few at once", "many at once"])
async def test_texts_of_any_characters_come_back_as_they_were(store: Store, others: int) -> None:
    await fill(store)
    texts = [
        "",
        "\\N",
        "\\.",
        "a\tb\nc\r\n\\d",
        "\0",
        "\x1f0\x1f\0\x1f1",
        "\u2028é🎉'\"%s",
        " ",
        "{,}\x0b\x0c",
        "\\x41\\",
    ]
    made = [an_answer(10 + number, 0)._replace(text=text) for number, text in enumerate(texts)]
    made += [an_answer(100 + number, 0) for number in range(others)]
    said = [
        a_judgement(number, annotator=text)._replace(comment=text, label=text, source=text, late=bool(number % 2))
        for number, text in enumerate(texts + ["x"] * others)
    ]
    async with store.writing() as tx:
        assert await tx.add_completions(made) == len(made)
        assert await tx.add_feedback(said) == len(said)
        # Again, in the same transaction: nothing is new, and what comes twice at once counts once.
        assert await tx.add_completions([*made, an_answer(99, 0), an_answer(99, 0)]) == 1
    async with store.reading() as tx:
        assert await tx.completions([row.completion_id for row in made]) == {row.completion_id: row for row in made}
        for row in said[: len(texts)]:
            assert await tx.feedback(row.feedback_id) == row


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


async def test_requests_are_remembered(store: Store) -> None:
    async with store.writing() as tx:
        await tx.remember(KeptResponse("r", "digest", b"\x00answer"), 1)
    async with store.reading() as tx:
        assert await tx.request("r") == KeptResponse("r", "digest", b"\x00answer")
        assert await tx.request("other") is None


async def test_split_is_pinned(store: Store) -> None:
    async with store.writing() as tx:
        await tx.pin_split(0.1, "salt")
    async with store.writing() as tx:
        await tx.pin_split(0.1, "salt")
        with pytest.raises(FailedPrecondition, match="change sides"):
            await tx.pin_split(0.1, "pepper")
