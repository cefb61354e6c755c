"""Leased tasks: programs wait for people, and a restarted judge continues with the task that it held."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import accord
from accord.judge.annotating import judge_queue
from accord.preference import v1 as preference_v1
from accord_controller.stages import simulated_annotators
from accord_preference.service import build
from accord_preference.settings import PreferenceSettings
from accord_runtime.serving.server import serving

pytestmark = pytest.mark.process

QUEUE = "run/iteration-1"


class FirstIsBetter:
    """A judge that always says A, so that both orders together are a tie."""

    async def ask(self, system: str, question: str) -> str:
        return "Verdict: A"


@asynccontextmanager
async def one_task(state_dir: Path) -> AsyncIterator[tuple[accord.Client, dict[str, float]]]:
    """A client of a preference service with one open comparison, and scores of its answers."""
    settings = PreferenceSettings(state_dir=state_dir)
    async with serving(await build(settings), settings) as address, accord.Client(preference=address) as client:
        (prompt,) = await client.preferences.create_prompts(
            [preference_v1.Prompt(conversation=accord.conversation("question"))]
        )
        answers = await client.preferences.create_completions(
            [preference_v1.Completion(prompt_id=prompt.prompt_id, text=text) for text in ("good", "bad")]
        )
        ids = [answer.completion_id for answer in answers]
        await client.preferences.create_tasks(
            [
                preference_v1.Task(
                    kind=preference_v1.TASK_KIND_COMPARISON,
                    prompt_id=prompt.prompt_id,
                    completion_ids=ids,
                    redundancy=1,
                    queue=QUEUE,
                )
            ]
        )
        yield client, dict(zip(ids, (1.0, 0.0), strict=True))


async def test_a_judge_that_was_killed_continues_with_the_task_that_it_held(tmp_path: Path) -> None:
    judge = preference_v1.Annotator(annotator_id="strict", kind=preference_v1.ANNOTATOR_KIND_MODEL)
    async with one_task(tmp_path) as (client, _):
        assert await client.preferences.lease_task(judge, ttl_seconds=600, queue=QUEUE) is not None
        done = await judge_queue(client.preferences, FirstIsBetter(), "strict", QUEUE)
        queue = await client.preferences.queue(QUEUE)
    assert (done.given, queue.open_tasks, queue.done_tasks) == (1, 0, 1)


async def test_simulated_annotators_wait_for_a_task_that_a_person_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated_annotators, "STALL_SECONDS", 0.3)
    person = preference_v1.Annotator(annotator_id="alice", kind=preference_v1.ANNOTATOR_KIND_HUMAN)

    async def ignore(given: int) -> None:
        assert given == 1

    async with one_task(tmp_path) as (client, scores):
        assert await client.preferences.lease_task(person, ttl_seconds=2, queue=QUEUE) is not None
        given = await simulated_annotators.annotate_queue(
            client, QUEUE, scores, annotators=2, noise=0.1, seed=0, progress=ignore
        )
    assert given == 1
