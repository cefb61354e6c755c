"""The mathematics of agreement and reliability, against published numbers and against annotators of known skill."""

from __future__ import annotations

import numpy as np
import pytest

from accord_preference.domain.pairwise import FIRST, SECOND, TIE, choices, is_right
from accord_preference.quality import krippendorff
from accord_preference.quality.dawid_skene import estimate, normalised, weights

pytestmark = pytest.mark.process

# K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), example C: four observers, twelve units.
OBSERVED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
UNITS = [[row[unit] for row in OBSERVED if row[unit] is not None] for unit in range(12)]


def test_alpha_is_the_published_one() -> None:
    assert krippendorff.nominal(UNITS) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff.interval([[float(value) for value in unit if value] for unit in UNITS]) == pytest.approx(
        0.849, abs=5e-4
    )


def test_alpha_of_binary_data_of_two_observers_is_the_published_one() -> None:
    # The same paper, example A: two observers, ten units.
    first, second = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff.nominal(list(zip(first, second, strict=True))) == pytest.approx(0.095, abs=5e-4)


def test_alpha_says_nothing_where_nothing_can_be_compared() -> None:
    assert krippendorff.nominal([[1], [2], []]) is None
    assert krippendorff.nominal([[1, 1], [1, 1]]) is None
    assert krippendorff.nominal([[1, 1], [2, 2]]) == 1.0
    assert krippendorff.interval([[0.5, 0.5]]) is None


def test_a_ranking_is_the_choices_that_it_implies() -> None:
    found = dict(choices(2, {"ranks": [["c"], ["a", "b"]]}))
    assert found == {("a", "c"): SECOND, ("b", "c"): SECOND, ("a", "b"): TIE}
    assert dict(choices(1, {"chosen_id": "a", "rejected_id": "b", "tie": False})) == {("a", "b"): FIRST}


def test_a_rating_is_right_within_the_tolerance_on_the_known_scale() -> None:
    known = {"value": {"completion_id": "a", "value": 4.0, "min": 1.0, "max": 5.0}, "tolerance": None}
    near, far = ({"completion_id": "a", "value": v, "min": 0.0, "max": 1.0} for v in (0.85, 0.9))
    assert is_right(3, near, known)
    assert not is_right(3, far, known)
    assert is_right(3, far, {**known, "tolerance": 1.0})


def _votes(skills: list[float], pairs: int, redundancy: int, seed: int) -> tuple[np.ndarray, ...]:
    """(pair, annotator, label of each vote; truth of each pair): each pair judged by `redundancy` of the annotators."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 2, pairs)
    pair = np.repeat(np.arange(pairs), redundancy)
    who = np.concatenate([draw.choice(len(skills), redundancy, replace=False) for _ in range(pairs)])
    right = draw.random(len(pair)) < np.array(skills)[who]
    return pair, who, np.where(right, truth[pair], 1 - truth[pair]), truth


def test_annotators_of_known_skill_are_recovered() -> None:
    skills = [0.95, 0.9, 0.8, 0.7, 0.6, 0.5]
    pair, who, label, truth = _votes(skills, 600, 3, seed=1)
    found = estimate(pair, who, label)
    assert np.abs(found.accuracy - skills).max() < 0.07
    right = label == truth[pair]
    # Calibrated: of the choices called right with probability p, about p are right.
    assert found.right.mean() == pytest.approx(right.mean(), abs=0.03)
    assert found.right[right].mean() > found.right[~right].mean() + 0.3


def test_an_annotator_who_answers_by_chance_counts_less_and_one_who_lies_not_at_all() -> None:
    pair, who, label, _ = _votes([0.9, 0.9, 0.85, 0.5, 0.1], 400, 4, seed=2)
    counted = weights(estimate(pair, who, label).right)
    means = [counted[who == number].mean() for number in range(5)]
    # Its right half agrees with the others and counts, its wrong half does not.
    assert means[3] < 0.65 * min(means[:3])
    assert means[4] < 0.15


def test_gold_tells_apart_what_agreement_alone_cannot() -> None:
    # Two agree with one another and two with one another, on opposite sides: only gold says who is right.
    draw = np.random.default_rng(3)
    truth = draw.integers(0, 2, 100)
    pair, who = np.repeat(np.arange(100), 4), np.tile(np.arange(4), 100)
    label = np.where(who < 2, truth[pair], 1 - truth[pair])
    found = estimate(pair, who, label, {number: int(truth[number]) for number in range(20)})
    assert found.accuracy[:2].min() > 0.9
    assert found.accuracy[2:].max() < 0.1


def test_pairs_judged_once_leave_everybody_alike_and_weights_have_mean_one() -> None:
    pair, who, label, _ = _votes([0.9, 0.6], 100, 1, seed=4)
    found = estimate(pair, who, label)
    assert found.accuracy == pytest.approx([0.75, 0.75], abs=0.02)
    assert normalised(weights(found.right)).mean() == pytest.approx(1.0)
    assert list(normalised(np.zeros(3))) == [1.0, 1.0, 1.0]
    assert len(estimate(pair[:0], who[:0], label[:0]).accuracy) == 0


def _fit(features: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Bradley-Terry with linear rewards: chosen minus rejected features, by gradient ascent with a little decay."""
    direction = np.zeros(features.shape[1])
    for _ in range(300):
        slope = 1 / (1 + np.exp(features @ direction))
        direction += 2.0 * ((weight * slope) @ features / weight.sum() - 0.01 * direction)
    return direction


def test_a_reward_model_of_weighted_choices_is_better_on_pairs_it_has_not_seen() -> None:
    gains = []
    for seed in range(8):
        draw = np.random.default_rng(seed)
        wanted = draw.normal(size=12)
        held, seen = draw.normal(size=(2000, 12)), draw.normal(size=(200, 12))
        truth = (seen @ wanted < 0).astype(int)  # 0: the first is better
        skills = [0.95, 0.9, 0.55, 0.5, 0.45]
        pair = np.repeat(np.arange(200), 3)
        who = np.concatenate([draw.choice(5, 3, replace=False) for _ in range(200)])
        right = draw.random(600) < np.array(skills)[who]
        label = np.where(right, truth[pair], 1 - truth[pair])
        difference = np.where(label == 0, 1, -1)[:, None] * seen[pair]
        counted = normalised(weights(estimate(pair, who, label).right))
        accuracy = [
            float(((held @ _fit(difference, weight)) * (held @ wanted) > 0).mean())
            for weight in (np.ones(600), counted)
        ]
        gains.append(accuracy[1] - accuracy[0])
    assert np.mean(gains) > 0.02
    assert sum(gain > 0 for gain in gains) >= 6
