"""Concurrent callers share batches, isolated ones do not, queues are bounded. Seen in the service's own log records."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from tests.support.reward import item, make_reward_model, reward_client, scorer, values

from accord.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted

pytestmark = pytest.mark.process

WORDS = [
    "fine",
    "the quick brown fox",
    "I love this wonderful happy day",
    "no",
    "please try again " * 5,
    "a",
    "dog",
    "",
]
LOG = "accord_reward.batching"


def batches(caplog: pytest.LogCaptureFixture, name: str) -> list[tuple[int, int]]:
    """(calls, items) of each batch that scorer `name` really ran."""
    records = [vars(record) for record in caplog.records if record.name == LOG]
    return [(record["batch_calls"], record["batch_items"]) for record in records if record["scorer"] == name]


async def test_concurrent_callers_are_batched_together_and_score_as_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = make_reward_model(tmp_path / "made")
    async with reward_client(tmp_path, batch_window_ms=100) as client:
        spec = scorer("model", model_digest=await client.reward.load_model(weights))
        alone = [values(await client.reward.score([item("hi", word)], scorers=[spec]))[0] for word in WORDS]
        caplog.set_level(logging.DEBUG, LOG)
        calls = (client.reward.score([item("hi", word)], scorers=[spec]) for word in WORDS)
        together = [values(results)[0] for results in await asyncio.gather(*calls)]
    assert together == pytest.approx(alone, abs=1e-5)
    ran = batches(caplog, "model")
    assert sum(calls for calls, _ in ran) == len(WORDS)
    assert max(calls for calls, _ in ran) >= len(WORDS) // 2


async def test_an_isolated_request_is_a_batch_of_its_own_whatever_the_traffic(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = make_reward_model(tmp_path / "made")
    items = [item("hi", word) for word in WORDS]
    async with reward_client(tmp_path, batch_window_ms=20) as client:
        spec = scorer("model", model_digest=await client.reward.load_model(weights))
        first = values(await client.reward.score(items, scorers=[spec], isolated=True))
        caplog.set_level(logging.DEBUG, LOG)
        others = [client.reward.score(items[:3], scorers=[spec]) for _ in range(6)]
        isolated = [client.reward.score(items, scorers=[spec], isolated=True) for _ in range(3)]
        answers = await asyncio.gather(*others[:3], *isolated, *others[3:])
    assert all(values(answer) == first for answer in answers[3:6])
    ran = batches(caplog, "model")
    assert ran.count((1, len(items))) == 3
    assert sum(calls for calls, _ in ran) == 9


async def test_callers_are_joined_up_to_the_limit_and_never_split(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, LOG)
    async with reward_client(tmp_path, batch_window_ms=100, max_batch_items=5) as client:
        calls = [client.reward.score([item("hi", "x")] * 2, scorers=[scorer("length")]) for _ in range(6)]
        large = client.reward.score([item("hi", "x")] * 12, scorers=[scorer("length")])
        await asyncio.gather(*calls, large)
    ran = batches(caplog, "length")
    assert sum(calls for calls, _ in ran) == 7
    assert all(items <= 4 or (calls, items) == (1, 12) for calls, items in ran)


async def test_other_options_are_another_scorer(tmp_path: Path) -> None:
    async with reward_client(tmp_path, batch_window_ms=50) as client:
        calls = [client.reward.score([item("hi", "xxxx")], scorers=[scorer("length", {"max": n})]) for n in (1, 2, 4)]
        answers = await asyncio.gather(*calls)
    assert [values(answer)[0] for answer in answers] == [-3, -1, 0]


SLOW = "import time\ndef score(prompt, response):\n    time.sleep(0.4)\n    return 1\n"


async def test_beyond_the_limit_of_queued_items_callers_are_asked_to_retry(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    async with reward_client(tmp_path, max_queued_items=3) as client:
        slow = [scorer("python:slow.py")]
        first = asyncio.create_task(client.reward.score([item("hi", "x")] * 2, scorers=slow))
        await asyncio.sleep(0.15)
        with pytest.raises(ResourceExhausted) as overloaded:
            await client.reward.score([item("hi", "x")] * 2, scorers=slow)
        assert overloaded.value.reason == "OVERLOADED"
        assert values(await first) == [1, 1]
        assert values(await client.reward.score([item("hi", "x")], scorers=slow)) == [1]
        with pytest.raises(InvalidArgument, match="at most 3"):
            await client.reward.score([item("hi", "x")] * 4, scorers=slow)


async def test_who_gives_up_while_waiting_is_not_scored_and_frees_the_queue(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    caplog.set_level(logging.DEBUG, LOG)
    async with reward_client(tmp_path, max_queued_items=2, batch_window_ms=0) as client:
        slow = [scorer("python:slow.py")]
        first = asyncio.create_task(client.reward.score([item("hi", "x")], scorers=slow))
        await asyncio.sleep(0.1)
        with pytest.raises(DeadlineExceeded):
            await client.reward.score([item("hi", "y")], scorers=slow, timeout=0.1)
        await first
        assert values(await client.reward.score([item("hi", "x")] * 2, scorers=[scorer("length")])) == [1, 1]
        assert values(await client.reward.score([item("hi", "z")], scorers=slow)) == [1]
    assert batches(caplog, "python:slow.py") == [(1, 1), (1, 1)]
