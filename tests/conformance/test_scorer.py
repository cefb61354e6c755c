"""What every scorer must do: one suite over all available scorers, through a real server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.reward import item, make_reward_model, reward_client, scorer, values

import accord
from accord import plugins
from accord.errors import InvalidArgument
from accord.reward import v1 as reward_v1


@dataclass(frozen=True)
class Case:
    """A scorer with options that make it tell responses apart."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    needs_model: bool = False


CASES = [
    Case("model", needs_model=True),
    Case("sentiment"),
    Case("length", {"target": 20}),
    Case("regex", {"pattern": r"\bgood\b", "found": 2, "missing": -1}),
    Case("python:./reward.py:score"),
]
FUNCTION = "def score(prompt, response, *, bonus=0.5):\n    return len(prompt) + response.count('o') + bonus\n"
ITEMS = [
    item("How are you?", "I am very good, thank you!", "a"),
    item("How are you?", "Terrible. I hate this awful day, and I hate that sad night too.", "b"),
    item("Tell me something long about the fox and the dog.", "No", "c"),
    item("And you?", "good", "d"),
    item("Say nothing.", "", "e"),
]


@dataclass(frozen=True)
class Served:
    client: accord.Client
    spec: reward_v1.ScorerSpec

    async def score(self, items: list[reward_v1.ScoreItem], isolated: bool = False) -> list[float]:
        return values(await self.client.reward.score(items, scorers=[self.spec], isolated=isolated))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_reward_model(tmp_path_factory.mktemp("reward_model"))


@pytest.fixture(params=CASES, ids=lambda case: case.name.partition(":")[0])
async def served(request: pytest.FixtureRequest, tmp_path: Path, weights: Any) -> AsyncIterator[Served]:
    case: Case = request.param
    (tmp_path / "reward.py").write_text(FUNCTION)
    async with reward_client(tmp_path) as client:
        digest = await client.reward.load_model(weights) if case.needs_model else ""
        yield Served(client, scorer(case.name, case.options, model_digest=digest))


def test_every_scorer_that_accord_brings_is_in_this_suite() -> None:
    assert set(plugins.names("accord.scorers")) <= {case.name for case in CASES}


async def test_it_gives_each_item_a_finite_score_in_order_and_tells_them_apart(served: Served) -> None:
    results = await served.client.reward.score(ITEMS, scorers=[served.spec])
    assert [result.item_id for result in results] == ["a", "b", "c", "d", "e"]
    scores = values(results)
    assert all(math.isfinite(score) for score in scores)
    assert len(set(scores)) > 1


async def test_an_item_scores_the_same_alone_reversed_and_among_others(served: Served) -> None:
    together = await served.score(ITEMS)
    alone = [(await served.score([one]))[0] for one in ITEMS]
    reversed_order = (await served.score(ITEMS[::-1]))[::-1]
    assert alone == pytest.approx(together, abs=1e-5)
    assert reversed_order == pytest.approx(together, abs=1e-5)


async def test_concurrent_callers_each_get_their_own_scores(served: Served) -> None:
    alone = [(await served.score([one]))[0] for one in ITEMS]
    at_once = await asyncio.gather(*(served.score([one]) for one in ITEMS * 3))
    assert [scores[0] for scores in at_once] == pytest.approx(alone * 3, abs=1e-5)


async def test_isolated_repeats_are_bit_equal(served: Served) -> None:
    first = await served.score(ITEMS, isolated=True)
    repeats = await asyncio.gather(*(served.score(ITEMS, isolated=True) for _ in range(3)), served.score(ITEMS[:2]))
    assert all(repeat == first for repeat in repeats[:3])


async def test_an_unknown_option_is_refused_with_its_field_named(served: Served) -> None:
    spec = reward_v1.ScorerSpec()
    spec.CopyFrom(served.spec)
    spec.options["no_such_option"] = 1
    with pytest.raises(InvalidArgument) as refused:
        await served.client.reward.score(ITEMS, scorers=[served.spec, spec])
    assert [violation.field for violation in refused.value.violations] == ["scorers[1].options.no_such_option"]


async def test_it_is_listed_with_a_sentence_and_a_schema_of_its_options(served: Served) -> None:
    listed = {info.name: info for info in (await served.client.reward.scorers()).scorers}
    name = "python:FILE:FUNCTION" if served.spec.name.startswith("python:") else served.spec.name
    assert listed[name].description.endswith(".")
    assert listed[name].options_schema["type"] == "object"
    assert set(served.spec.options) <= set(listed[name].options_schema["properties"] if served.spec.options else ())
