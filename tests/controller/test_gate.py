"""The gate: what is promoted, what is not, and that numbers that are none never pass."""

from __future__ import annotations

import math

import pytest

from accord.controller import v1 as controller_v1
from accord_controller.stages.evaluate import decide

SPEC = controller_v1.EvaluateSpec(min_gain=0.1, max_kl=10.0)


@pytest.mark.parametrize(
    ("score", "kl", "promoted", "said"),
    [
        (0.6, 3.0, True, "promoted"),
        (0.601, 10.0, True, "promoted"),
        (0.59, 3.0, False, "below 0.6000"),
        (0.9, 10.01, False, "KL 10.01"),
        (math.nan, 3.0, False, "not finite"),
        (0.9, math.nan, False, "not finite"),
        (math.inf, 3.0, False, "not finite"),
    ],
)
def test_a_candidate_passes_only_with_enough_gain_and_little_enough_kl(
    score: float, kl: float, promoted: bool, said: str
) -> None:
    passed, reason = decide(score, 0.5, kl, SPEC)
    assert passed is promoted
    assert said in reason


def test_without_a_wanted_gain_an_equal_candidate_passes() -> None:
    assert decide(0.5, 0.5, 0.0, controller_v1.EvaluateSpec(min_gain=0.0, max_kl=10.0))[0]
