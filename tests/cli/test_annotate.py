"""A person in a terminal judges answers of a real preference service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.support.command import accord_command, lines, preference_service
from tests.support.terminal import Terminal, terminal

import accord
from accord.preference import v1 as preference_v1
from accord.types import v1 as types_v1

pytestmark = pytest.mark.process

GOOD, BAD = "Certainly: the answer is 42.", "No idea \x1b[2J whatsoever."


async def add_tasks(
    client: accord.Client, count: int, kind: preference_v1.TaskKind.ValueType, answers: tuple[str, ...] = (GOOD, BAD)
) -> list[str]:
    """Opens `count` tasks on prompts of their own in queue `q`; returns the id of the first answer of each."""
    firsts = []
    for number in range(count):
        turns = types_v1.Conversation(messages=[types_v1.ChatMessage(role="user", content=f"Question {number}?")])
        [prompt] = await client.preferences.create_prompts([preference_v1.Prompt(conversation=turns)])
        made = await client.preferences.create_completions(
            [preference_v1.Completion(prompt_id=prompt.prompt_id, text=text) for text in answers]
        )
        ids = [completion.completion_id for completion in made]
        task = preference_v1.Task(kind=kind, prompt_id=prompt.prompt_id, completion_ids=ids, queue="q")
        await client.preferences.create_tasks([task])
        firsts.append(ids[0])
    return firsts


async def stored(client: accord.Client) -> list[preference_v1.Record]:
    kind = preference_v1.SNAPSHOT_KIND_PREFERENCES
    return [record async for record in client.preferences.export_records(kind)]


async def good_number(screen: Terminal) -> str:
    """The number under which the good answer is shown."""
    shown = await screen.expect(r"Answer 1(.*)Answer 2(.*)Which is better")
    return "1" if GOOD in shown.group(1) else "2"


async def test_the_answer_that_a_person_prefers_is_stored_whatever_the_order_on_the_screen(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        good = await add_tasks(client, 4, preference_v1.TASK_KIND_COMPARISON)
        async with terminal(tmp_path, "annotate", "--annotator", "alice", "--queue", "q") as screen:
            await screen.expect("4 open")
            orders = []
            for _ in range(4):
                orders.append(await good_number(screen))
                screen.press(orders[-1])
            await screen.expect("alice: 4 answers saved")
            assert await screen.process.wait() == 0
            assert "\x1b[2J" not in screen.raw.decode()  # the answer's own control characters are shown, not obeyed
        records = await stored(client)
        assert {record.feedback.comparison.chosen_id for record in records} == set(good)
        assert {record.feedback.annotator.annotator_id for record in records} == {"alice"}
        assert {record.feedback.annotator.kind for record in records} == {preference_v1.ANNOTATOR_KIND_HUMAN}


async def test_tie_skip_and_quit(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        await add_tasks(client, 3, preference_v1.TASK_KIND_COMPARISON)
        async with terminal(tmp_path, "annotate", "-a", "bob", "-q", "q") as screen:
            for key, question in (("t", 0), ("s", 1)):
                await screen.expect(f"Question {question}.*Which is better")
                screen.press(key)
            await screen.expect("Question 2.*Which is better")
            screen.press("x")
            await screen.expect("Press 1, 2, t, s or q")
            screen.press("q")
            await screen.expect("bob: 1 answer saved, 1 skipped")
            assert await screen.process.wait() == 0
        [record] = await stored(client)
        assert record.feedback.comparison.tie
        queue = await client.preferences.queue("q")
        assert (queue.open_tasks, queue.done_tasks, queue.leased_tasks) == (2, 1, 0)


async def test_skipped_tasks_do_not_come_round_for_ever(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        await add_tasks(client, 2, preference_v1.TASK_KIND_COMPARISON)
        ran = await accord_command(tmp_path, "annotate", "-a", "bob", stdin=lines("ss"))
        assert ran.code == 0
        assert "Only tasks that you skipped are left" in ran.err
        assert (await client.preferences.queue("q")).leased_tasks == 0


async def test_ctrl_c_keeps_what_was_answered_and_gives_the_open_task_and_the_terminal_back(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        await add_tasks(client, 2, preference_v1.TASK_KIND_COMPARISON)
        async with terminal(tmp_path, "annotate", "-a", "eve") as screen:
            screen.press(await good_number(screen))
            await good_number(screen)
            assert not screen.echoes()
            screen.interrupt()
            await screen.expect("eve: 1 answer saved; the task on the screen was given back")
            assert await screen.process.wait() == 130
            assert screen.echoes()
        queue = await client.preferences.queue("q")
        assert (queue.feedback, queue.leased_tasks, queue.open_tasks) == (1, 0, 1)


async def test_rankings_are_asked_again_until_they_are_whole(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        await add_tasks(client, 1, preference_v1.TASK_KIND_RANKING, ("first", "second", "third"))
        async with terminal(tmp_path, "annotate", "-a", "ann") as screen:
            shown = await screen.expect(r"Answer 1(.*)Answer 2(.*)Answer 3(.*)Best first")
            number = next(str(n) for n in (1, 2, 3) if "second" in shown.group(n))
            others = [n for n in "123" if n != number]
            screen.press(f"{number}\n")
            await screen.expect("is missing")
            screen.press(f"{number} {others[0]}={others[1]}\n")
            await screen.expect("1 answer saved")
        [record] = await stored(client)
        text = {completion.completion_id: completion.text for completion in record.completions}
        ranks = [sorted(text[name] for name in rank.completion_ids) for rank in record.feedback.ranking.ranks]
        assert ranks == [["second"], ["first", "third"]]


async def test_ratings_and_keys_through_a_pipe(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        await add_tasks(client, 1, preference_v1.TASK_KIND_RATING, ("fine",))
        ran = await accord_command(tmp_path, "annotate", "-a", "pipe", stdin=lines(["seven", "4"]))
        assert (ran.code, "no number" in ran.err) == (0, True)
        [record] = await stored(client)
        rating = record.feedback.rating
        assert (rating.value, rating.min, rating.max) == (4, 1, 5)


async def test_the_end_of_the_input_is_the_end_of_the_session(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        await add_tasks(client, 1, preference_v1.TASK_KIND_COMPARISON)
        async with asyncio.timeout(30):
            ran = await accord_command(tmp_path, "annotate", "-a", "none")
        assert (ran.code, "0 answers saved" in ran.err) == (0, True)
        assert (await client.preferences.queue("q")).leased_tasks == 0
