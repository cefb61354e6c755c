"""Simulated annotators: noisy as promised, independent of who asks, and real clients of the preference service."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import pytest

import accord
from accord.preference import v1 as preference_v1
from accord_controller.stages.simulated_annotators import annotate_queue, judge, sample_order
from accord_preference.service import build
from accord_preference.settings import PreferenceSettings
from accord_runtime.serving.server import serving

DRAWS = 20_000


@pytest.mark.parametrize(("gap", "noise"), [(0.0, 0.1), (0.1, 0.1), (0.05, 0.1), (-0.3, 0.2), (2.0, 1.0)])
def test_a_is_preferred_with_the_probability_of_the_sigmoid(gap: float, noise: float) -> None:
    source = random.Random(0)
    share = sum(sample_order([gap, 0.0], noise, source)[0] == 0 for _ in range(DRAWS)) / DRAWS
    expected = 1 / (1 + math.exp(-gap / noise))
    assert abs(share - expected) < 4 * math.sqrt(0.25 / DRAWS)


def test_rankings_follow_plackett_luce() -> None:
    scores, noise, source = [0.3, 0.0, -0.2], 0.25, random.Random(1)
    weights = [math.exp(score / noise) for score in scores]
    seen: dict[tuple[int, ...], int] = {}
    for _ in range(DRAWS):
        order = tuple(sample_order(scores, noise, source))
        seen[order] = seen.get(order, 0) + 1
    for order in itertools.permutations(range(3)):
        left, probability = sum(weights), 1.0
        for index in order:
            probability *= weights[index] / left
            left -= weights[index]
        assert abs(seen.get(order, 0) / DRAWS - probability) < 0.02


def test_a_judgement_depends_on_the_task_and_not_on_who_asks_or_when() -> None:
    lease = preference_v1.TaskLease(
        task=preference_v1.Task(
            task_id="t", kind=preference_v1.TASK_KIND_RANKING, prompt_id="p", completion_ids=["a", "b", "c"]
        ),
        completions=[preference_v1.Completion(completion_id=name, text=f"text {name}") for name in "abc"],
    )
    scores = {"a": 0.1, "b": 0.0, "c": -0.1}
    first = judge(lease, scores, noise=1.0, seed=3)
    other_ids = preference_v1.TaskLease()
    other_ids.CopyFrom(lease)
    other_ids.task.task_id, other_ids.lease_id = "another", "lease-2"
    again = judge(other_ids, scores, noise=1.0, seed=3)
    assert again.ranking == first.ranking
    orders = {str(judge(lease, scores, noise=1.0, seed=seed).ranking) for seed in range(20)}
    assert len(orders) > 3


async def test_annotators_lease_every_task_and_submit_as_simulated(tmp_path: Path) -> None:
    settings = PreferenceSettings(state_dir=tmp_path)
    async with serving(await build(settings), settings) as address, accord.Client(preference=address) as client:
        prompts = await client.preferences.create_prompts(
            [preference_v1.Prompt(conversation=accord.conversation(f"question {number}")) for number in range(6)]
        )
        answers = await client.preferences.create_completions(
            [
                preference_v1.Completion(prompt_id=prompt.prompt_id, text=text)
                for prompt in prompts
                for text in ("good", "bad")
            ]
        )
        await client.preferences.create_tasks(
            [
                preference_v1.Task(
                    kind=preference_v1.TASK_KIND_COMPARISON,
                    prompt_id=prompt.prompt_id,
                    completion_ids=[answer.completion_id for answer in answers if answer.prompt_id == prompt.prompt_id],
                    redundancy=2,
                    queue="run/iteration-1",
                )
                for prompt in prompts
            ]
        )
        counts: list[int] = []

        async def progress(given: int) -> None:
            counts.append(given)

        scores = {answer.completion_id: float(answer.text == "good") for answer in answers}
        given = await annotate_queue(
            client, "run/iteration-1", scores, annotators=3, noise=0.01, seed=5, progress=progress
        )
        queue = await client.preferences.queue("run/iteration-1")
        records = [
            record async for record in client.preferences.export_records(preference_v1.SNAPSHOT_KIND_PREFERENCES)
        ]
    assert given == 12
    assert counts == list(range(1, 13))
    assert (queue.open_tasks, queue.done_tasks, queue.feedback) == (0, 6, 12)
    assert {record.feedback.annotator.kind for record in records} == {preference_v1.ANNOTATOR_KIND_SIMULATED}
    assert {record.feedback.annotator.annotator_id for record in records} <= {f"simulated-{n}" for n in range(3)}
    assert all(scores[record.feedback.comparison.chosen_id] == 1.0 for record in records)
