"""Group baselines and loss aggregation: golden numbers by hand."""

from __future__ import annotations

import math

import pytest
import torch

from accord_trainer.objectives.group_baselines import (
    group_index,
    group_mean,
    group_normalised,
    leave_one_out,
    overlong_penalty,
    returns_to_go,
    without_signal,
)
from accord_trainer.objectives.policy_loss import token_weights

# Two groups, interleaved: rewards 1, 3, 8 and 2, 2.
GROUP_B = torch.tensor([0, 1, 0, 1, 0])
REWARD_B = torch.tensor([1.0, 2.0, 3.0, 2.0, 8.0])


def test_equal_prompts_form_one_group_in_any_order() -> None:
    assert group_index([[5, 6], [7], [5, 6], [7], [5, 6]]).tolist() == [0, 1, 0, 1, 0]


def test_group_baselines_by_hand() -> None:
    assert group_mean(REWARD_B, GROUP_B).tolist() == [4, 2, 4, 2, 4]
    assert without_signal(REWARD_B, GROUP_B).tolist() == [False, True, False, True, False]
    deviation = math.sqrt((9 + 1 + 16) / 3)
    expected = [-3 / deviation, 0, -1 / deviation, 0, 4 / deviation]
    assert group_normalised(REWARD_B, GROUP_B).tolist() == pytest.approx(expected, rel=1e-6)
    assert group_normalised(REWARD_B, GROUP_B, scale=False).tolist() == [-3, 0, -1, 0, 4]
    assert leave_one_out(REWARD_B, GROUP_B).tolist() == [1 - 5.5, 0, 3 - 4.5, 0, 8 - 2]


def test_equal_rewards_give_zero_though_their_mean_is_rounded() -> None:
    reward_B = torch.full((3,), 0.1)  # 0.1 + 0.1 + 0.1 is not 3 * 0.1 in float32
    group_B = torch.zeros(3, dtype=torch.long)
    for advantage_B in (group_normalised(reward_B, group_B), leave_one_out(reward_B, group_B)):
        assert advantage_B.tolist() == [0, 0, 0]


def test_a_group_of_one_has_no_baseline_and_no_advantage() -> None:
    assert leave_one_out(torch.tensor([5.0]), torch.tensor([0])).tolist() == [0]


def test_the_overlong_penalty_is_linear_over_the_buffer() -> None:
    length_B, limit_B = torch.tensor([10, 80, 90, 100]), torch.full((4,), 100)
    assert overlong_penalty(length_B, limit_B, 20).tolist() == pytest.approx([0, 0, -0.5, -1])


def test_returns_pass_over_tokens_that_the_policy_did_not_choose() -> None:
    rewards_BR = torch.tensor([[1.0, 100.0, 2.0, 4.0, float("nan")]])
    mask_BR = torch.tensor([[True, False, True, True, False]])
    assert returns_to_go(rewards_BR, mask_BR, 0.5).tolist() == [[1 + 0.5 * 4, 0, 4, 4, 0]]


def test_each_aggregation_weighs_tokens_as_it_says() -> None:
    """Responses of 1 and 3 tokens and one that is left out; the loss of every token is 1, then that of one token."""
    mask_BR = torch.tensor([[1, 0, 0], [1, 1, 1], [0, 0, 0]]).bool()
    limit_B = torch.full((3,), 4)

    def loss(how: str, losses_BR: torch.Tensor) -> float:
        weights_B1 = token_weights(mask_BR, limit_B, how)
        weighted_BR = losses_BR if weights_B1 is None else losses_BR * weights_B1
        return float(weighted_BR[mask_BR].sum() / mask_BR.sum())

    first_BR = torch.zeros(3, 3)
    first_BR[0, 0] = 1.0
    assert loss("token", torch.ones(3, 3)) == loss("sequence", torch.ones(3, 3)) == 1
    assert loss("token", first_BR) == pytest.approx(1 / 4)
    assert loss("sequence", first_BR) == pytest.approx(1 / 2)
    assert loss("constant", first_BR) == pytest.approx(1 / (2 * 4))
