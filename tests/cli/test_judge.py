"""A language model judges, behind a real HTTP endpoint that answers by a rule: the longer answer is better."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.test_annotate import add_tasks, stored
from tests.support.command import accord_command, preference_service
from tests.support.judge_peer import peer

from accord.conversations import conversation
from accord.errors import FailedPrecondition, InvalidArgument, Unavailable
from accord.judge.endpoint import Endpoint
from accord.judge.verdict import Unreadable, compare, read
from accord.preference import v1 as preference_v1

pytestmark = pytest.mark.process


async def test_a_judge_works_through_a_queue_and_is_kept_apart_from_people(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        await add_tasks(client, 3, preference_v1.TASK_KIND_COMPARISON, ("Long enough to win.", "Short."))
        await add_tasks(client, 1, preference_v1.TASK_KIND_RANKING, ("middling one", "the longest of them", "tiny"))
        with peer() as server:
            ran = await accord_command(tmp_path, "annotate", "--judge", server.url, "--model", "ruler", "-q", "q")
        assert (ran.code, "judge-ruler is done: 4 verdicts" in ran.err) == (0, True), ran.err
        # Two orders of each pair: 3 comparisons and the 3 pairs of the ranking.
        assert len(server.seen) == 12
        assert all(asked["temperature"] == 0 for asked in server.seen)
        records = await stored(client)
        texts = {completion.completion_id: completion.text for record in records for completion in record.completions}
        chosen = [record.feedback.comparison for record in records if record.feedback.HasField("comparison")]
        assert {texts[one.chosen_id] for one in chosen} == {"Long enough to win."}
        [ranking] = [record.feedback.ranking for record in records if record.feedback.HasField("ranking")]
        best_first = [texts[name] for rank in ranking.ranks for name in rank.completion_ids]
        assert best_first == ["the longest of them", "middling one", "tiny"]
        assert {record.feedback.annotator.kind for record in records} == {preference_v1.ANNOTATOR_KIND_MODEL}
        kinds = [kind.kind for kind in await client.annotators.quality()]
        assert kinds == [preference_v1.ANNOTATOR_KIND_MODEL]


async def test_a_judge_that_prefers_a_place_says_nothing_but_ties(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        await add_tasks(client, 2, preference_v1.TASK_KIND_COMPARISON)
        with peer("first") as server:
            await accord_command(tmp_path, "annotate", "--judge", server.url, "--model", "ruler")
        assert [record.feedback.comparison.tie for record in await stored(client)] == [True, True]


async def test_a_reply_that_cannot_be_read_is_a_skip_and_no_data(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        await add_tasks(client, 3, preference_v1.TASK_KIND_COMPARISON, ("Long enough to win.", "Short."))
        with peer("mumble") as server:
            ran = await accord_command(tmp_path, "annotate", "--judge", server.url, "--model", "ruler")
        assert "2 verdicts saved, 1 tasks without a readable one" in ran.err
        assert len(await stored(client)) == 2
        queue = await client.preferences.queue("q")
        assert (queue.open_tasks, queue.leased_tasks) == (1, 0)


async def test_an_endpoint_that_refuses_keeps_the_task_and_says_why(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        await add_tasks(client, 1, preference_v1.TASK_KIND_COMPARISON)
        with peer() as server:
            ran = await accord_command(tmp_path, "annotate", "--judge", server.url, "--model", "unknown")
        assert (ran.code, "answered 404" in ran.err) == (1, True)
        assert (await client.preferences.queue("q")).leased_tasks == 0
        assert await stored(client) == []


async def test_a_busy_endpoint_is_asked_again_and_a_dead_one_is_unavailable() -> None:
    with peer() as server:
        server.failures = 2
        endpoint = Endpoint(server.url, "ruler", key="secret")
        assert await compare(endpoint, conversation("Hello?"), "a long one", "short") == 1
        assert set(server.keys) == {"Bearer secret"}
        server.failures = 3
        with pytest.raises(Unavailable) as caught:
            await endpoint.ask("s", "q")
    assert caught.value.reason == "JUDGE_UNREACHABLE"
    with pytest.raises(Unavailable):
        await Endpoint(server.url, "ruler", timeout=1).ask("s", "q")
    with pytest.raises(InvalidArgument, match="http"):
        Endpoint("ftp://x", "ruler")
    with peer() as server, pytest.raises(FailedPrecondition):
        await Endpoint(server.url, "other").ask("s", "q")


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Verdict: A", "a"),
        ("I first thought Verdict: A, but no.\nVerdict: B", "b"),
        ("**Verdict:** [[B]]", "b"),
        ("verdict - tie", "tie"),
        (" b.", "b"),
    ],
)
def test_the_last_verdict_of_a_reply_counts(reply: str, verdict: str) -> None:
    assert read(reply) == verdict


@pytest.mark.parametrize("reply", ["", "A is nice, B too.", "Verdict: C", "Verdict:", "Answer"])
def test_what_names_no_verdict_is_unreadable(reply: str) -> None:
    with pytest.raises(Unreadable):
        read(reply)
