"""What a comparison is worth to an ensemble."""

from __future__ import annotations

import math

import pytest

from accord_controller.stages.active_selection import disagreement, information, probabilities, value_of

SURE = [9.0, 9.0], [0.0, 0.0]
COIN = [1.0, 1.0], [1.0, 1.0]
DIVIDED = [9.0, -9.0], [0.0, 0.0]


def test_members_that_agree_are_worth_nothing_whether_sure_or_not() -> None:
    for answers in (SURE, COIN):
        assert disagreement(*answers) == pytest.approx(0.0)
        assert information(*answers) == pytest.approx(0.0, abs=1e-12)


def test_members_that_contradict_one_another_are_worth_most() -> None:
    assert disagreement(*DIVIDED) == pytest.approx(0.5, abs=1e-3)
    assert information(*DIVIDED) == pytest.approx(math.log(2), abs=2e-3)
    # The same deviation between unsure members tells more than between a sure one and an unsure one.
    assert information([0.5, -0.5], [0.0, 0.0]) < information([3.0, -3.0], [0.0, 0.0])


def test_scores_far_apart_overflow_nothing() -> None:
    assert probabilities([1e4], [-1e4]) == [1.0]
    assert probabilities([-1e4], [1e4]) == [0.0]
    assert information([1e4, -1e4], [-1e4, 1e4]) == pytest.approx(math.log(2))


def test_more_than_two_answers_are_worth_the_mean_of_their_pairs() -> None:
    scores = [[9.0, -9.0], [0.0, 0.0], [0.0, 0.0]]
    assert value_of("disagreement", scores) == pytest.approx((0.5 + 0.5 + 0.0) / 3, abs=1e-3)
    with pytest.raises(KeyError):
        value_of("random", scores)
