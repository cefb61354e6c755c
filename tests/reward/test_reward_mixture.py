"""Mixtures: totals are the sum of their parts, numbers out of range are refused, a failed part fails its item."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.reward import item, reward_client, scorer, values

from accord.errors import InvalidArgument

ITEMS = [item("Hello", "I love it, wonderful!"), item("Hello", "I hate it."), item("Hello", "a chair")]


async def test_the_total_is_the_sum_of_its_parts_and_each_part_follows_the_formula(tmp_path: Path) -> None:
    mixture = [
        scorer("sentiment", weight=2.0, shift=0.25, scale=0.5),
        scorer("length", weight=-0.01),
        scorer("regex", {"pattern": "love"}, weight=0.0),
    ]
    async with reward_client(tmp_path) as client:
        results = await client.reward.score(ITEMS, scorers=mixture)
    for result, asked in zip(results, ITEMS, strict=True):
        sentiment, length, regex = result.score.parts
        assert [sentiment.name, length.name, regex.name] == ["sentiment", "length", "regex"]
        assert sentiment.weighted == pytest.approx(2.0 * (sentiment.raw - 0.25) / 0.5)
        assert length.raw == len(asked.response)
        assert length.weighted == pytest.approx(-0.01 * length.raw)
        assert (regex.raw, regex.weighted) == (float("love" in asked.response), 0.0)
        assert result.score.value == pytest.approx(sentiment.weighted + length.weighted + regex.weighted, abs=1e-12)


async def test_a_weight_of_zero_is_kept_and_not_taken_for_unset(tmp_path: Path) -> None:
    async with reward_client(tmp_path) as client:
        unset = values(await client.reward.score(ITEMS, scorers=[scorer("length")]))
        zero = values(await client.reward.score(ITEMS, scorers=[scorer("length", weight=0.0)]))
    assert unset == [len(asked.response) for asked in ITEMS]
    assert zero == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("field", "value"),
    [("scale", 0.0), ("scale", -1.0), ("scale", float("nan")), ("weight", float("inf")), ("shift", float("nan"))],
)
async def test_numbers_that_make_no_mixture_are_refused_by_name(tmp_path: Path, field: str, value: float) -> None:
    async with reward_client(tmp_path) as client:
        with pytest.raises(InvalidArgument) as refused:
            await client.reward.score(ITEMS, scorers=[scorer("sentiment"), scorer("length", **{field: value})])
    assert [violation.field for violation in refused.value.violations] == [f"scorers[1].{field}"]


async def test_a_part_that_fails_fails_its_item_and_the_others_are_scored(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("def score(prompt, response):\n    return 1 / response.count('I')\n")
    mixture = [scorer("sentiment"), scorer("python:reward.py:score")]
    async with reward_client(tmp_path) as client:
        results = await client.reward.score(ITEMS, scorers=mixture)
    assert [result.WhichOneof("result") for result in results] == ["score", "score", "failure"]
    assert results[2].failure.reason == "SCORER_FAILED"
    assert "ZeroDivisionError" in results[2].failure.message


async def test_a_total_out_of_range_is_a_failure_and_no_infinity(tmp_path: Path) -> None:
    async with reward_client(tmp_path) as client:
        (result,) = await client.reward.score(ITEMS[:1], scorers=[scorer("length", weight=1e308, scale=1e-10)])
    assert result.failure.reason == "SCORER_FAILED"
