"""The rule scorers: formulas, wrong options, patterns that never end, and a third party's scorer by entry point."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.reward import item, make_reward_model, reward_client, scorer, values

from accord.errors import InvalidArgument
from accord.types import v1 as types_v1
from accord_reward.scorer import Item, Outcome, RewardModelHandle, ScorerContext
from accord_reward.scorers.length import LengthOptions, LengthScorer
from accord_reward.scorers.model import ModelOptions, ModelScorer


def fields(error: InvalidArgument) -> list[str]:
    return [violation.field for violation in error.violations]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 5, 10, 30]),
        ({"unit": "words"}, [0, 1, 2, 6]),
        ({"target": 10}, [-1, -0.5, 0, -2]),
        ({"min": 10}, [-1, -0.5, 0, 0]),
        ({"max": 10}, [0, 0, 0, -2]),
        ({"min": 5, "max": 20}, [-1, 0, 0, -0.5]),
    ],
)
async def test_length_follows_its_formula(tmp_path: Path, options: dict[str, object], expected: list[float]) -> None:
    responses = ["", "abcd ", "abcd abcd ", "abcd " * 6]
    async with reward_client(tmp_path) as client:
        results = await client.reward.score([item("?", one) for one in responses], scorers=[scorer("length", options)])
    assert values(results) == pytest.approx(expected)


async def test_length_counts_the_tokens_of_the_model_that_is_named(tmp_path: Path) -> None:
    from accord_models.tokenizer import load_tokenizer

    weights = make_reward_model(tmp_path / "made")
    tokenizer = load_tokenizer(tmp_path / "made" / "model")
    responses = ["the quick brown fox", "", "zzz"]
    async with reward_client(tmp_path) as client:
        digest = await client.reward.load_model(weights)
        spec = scorer("length", {"unit": "tokens"}, model_digest=digest)
        counted = values(await client.reward.score([item("?", one) for one in responses], scorers=[spec]))
        with pytest.raises(InvalidArgument) as refused:
            await client.reward.score([item("?", "x")], scorers=[scorer("length", {"unit": "tokens"})])
    assert counted == [len(tokenizer(one, add_special_tokens=False)["input_ids"]) for one in responses]
    assert fields(refused.value) == ["scorers[0].model_digest"]


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("length", {"target": "long"}, "scorers[0].options.target"),
        ("length", {"target": 5, "min": 3}, "scorers[0].options"),
        ("regex", {"pattern": "("}, "scorers[0].options.pattern"),
        ("regex", {}, "scorers[0].options.pattern"),
        ("sentiment", {"lexicon": "mine"}, "scorers[0].options.lexicon"),
    ],
)
async def test_wrong_options_are_refused_by_name(
    tmp_path: Path, name: str, options: dict[str, object], field: str
) -> None:
    async with reward_client(tmp_path) as client:
        with pytest.raises(InvalidArgument) as refused:
            await client.reward.score([item("?", "x")], scorers=[scorer(name, options)])
    assert fields(refused.value) == [field]
    assert refused.value.reason == "BAD_OPTIONS"


async def test_sentiment_is_the_compound_of_the_response_alone(tmp_path: Path) -> None:
    async with reward_client(tmp_path) as client:
        items = [item("awful", "wonderful"), item("wonderful", "awful"), item("x", "a table"), item("x", "")]
        good, bad, neutral, empty = values(await client.reward.score(items, scorers=[scorer("sentiment")]))
    assert good > 0.5
    assert bad < -0.4
    assert (neutral, empty) == (0, 0)


async def test_a_pattern_that_backtracks_for_ever_fails_its_items_in_time(tmp_path: Path) -> None:
    spec = scorer("regex", {"pattern": "(a|aa)+$", "timeout_seconds": 0.1})
    async with reward_client(tmp_path) as client:
        started = time.perf_counter()
        stuck, found = await client.reward.score([item("?", "a" * 90 + "!"), item("?", "aaa")], scorers=[spec])
    assert time.perf_counter() - started < 5
    assert stuck.failure.reason == "SCORER_FAILED"
    assert found.score.value == 1


async def test_an_unknown_scorer_is_answered_with_those_that_exist(tmp_path: Path) -> None:
    async with reward_client(tmp_path) as client:
        with pytest.raises(InvalidArgument, match="length, model, regex, sentiment") as refused:
            await client.reward.score([item("?", "x")], scorers=[scorer("sentiment"), scorer("sentimental")])
    assert refused.value.reason == "UNKNOWN_SCORER"
    assert fields(refused.value) == ["scorers[1].name"]


async def test_a_third_party_scorer_plugs_in_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "shouting-1.0.dist-info").mkdir(parents=True)
    (site / "shouting-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n")
    (site / "shouting-1.0.dist-info" / "entry_points.txt").write_text(
        "[accord.scorers]\nshouting = shouting_scorer:Shouting\nbroken_one = shouting_missing:Missing\n"
    )
    (site / "shouting_scorer.py").write_text(
        "from accord_reward.scorer import Options, Scorer\n"
        "class Volume(Options):\n    each: float = 1.0\n"
        "class Shouting(Scorer):\n"
        "    description = 'Counts exclamation marks.'\n    options_type = Volume\n"
        "    def __init__(self, options, context):\n        self.each = options.each\n"
        "    async def score(self, items):\n        return [self.each * item.response.count('!') for item in items]\n"
    )
    monkeypatch.syspath_prepend(str(site))
    async with reward_client(tmp_path) as client:
        results = await client.reward.score([item("?", "Hey!!")], scorers=[scorer("shouting", {"each": 3})])
        listed = {info.name: info.description for info in (await client.reward.scorers()).scorers}
    assert values(results) == [6]
    assert listed["shouting"] == "Counts exclamation marks."
    assert "Cannot be used" in listed["broken_one"]


async def test_a_role_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    wrong = item("?", "x")
    wrong.prompt.messages[0].role = "wizard"
    async with reward_client(tmp_path) as client:
        with pytest.raises(InvalidArgument) as refused:
            await client.reward.score([item("?", "x"), wrong], scorers=[scorer("length")])
    assert fields(refused.value) == ["items[1].prompt.messages[0].role"]


async def test_a_model_for_a_scorer_that_uses_none_is_refused(tmp_path: Path) -> None:
    async with reward_client(tmp_path) as client:
        with pytest.raises(InvalidArgument) as refused:
            await client.reward.score([item("?", "x")], scorers=[scorer("sentiment", model_digest="0" * 64)])
    assert fields(refused.value) == ["scorers[0].model_digest"]


async def test_a_scorer_needs_no_more_of_a_reward_model_than_the_handle_says() -> None:
    class Fake:
        """What a third party's test may put in place of a loaded model."""

        members, max_tokens = 1, 10

        def score(
            self, items: Sequence[Item], max_batch_tokens: int, max_length: int | None = None, member: int | None = None
        ) -> list[Outcome]:
            return [float(len(item.response)) for item in items]

        def count_tokens(self, texts: Sequence[str]) -> list[int]:
            return [len(text) for text in texts]

    model: RewardModelHandle = Fake()
    with ThreadPoolExecutor(1) as compute:
        context = ScorerContext(model, compute, max_batch_tokens=64)
        items = [Item(types_v1.Conversation(), "abc")]
        assert await ModelScorer(ModelOptions(), context).score(items) == [3.0]
        assert await LengthScorer(LengthOptions(unit="tokens"), context).score(items) == [3.0]
