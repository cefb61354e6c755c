"""Losses and estimators against numbers worked out by hand, or a slow reference in float64."""

from __future__ import annotations

import math

import pytest
import torch

from accord_trainer.objectives.advantages import gae, masked_mean, token_rewards, whiten
from accord_trainer.objectives.policy_loss import (
    KlController,
    explained_variance,
    importance_weights,
    k1,
    k2,
    k3,
    ppo_policy_terms,
    value_loss_sum,
)
from accord_trainer.objectives.preference import bradley_terry, centring, plackett_luce, rating_loss

NAN = float("nan")


def tensor(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_score_sits_at_the_last_masked_token_and_kl_at_each() -> None:
    kl = tensor([0.1, 0.2, NAN], [0.3, NAN, 0.5])
    mask = torch.tensor([[True, True, False], [True, False, True]])
    found = token_rewards(tensor(1.0, -1.0), kl, mask, kl_coefficient=0.5)
    assert torch.allclose(found, tensor([-0.05, 0.9, 0.0], [-0.15, 0.0, -1.25]))


def test_gae_by_hand() -> None:
    # gamma .5, lambda .5. t=1: delta = 2 - 1 = 1. t=0: delta = 1 + .5 * 1 - 0 = 1.5, A = 1.5 + .25 * 1 = 1.75.
    advantages, returns = gae(
        tensor([1.0, 2.0, NAN]), tensor([0.0, 1.0, NAN]), torch.tensor([[True, True, False]]), gamma=0.5, lam=0.5
    )
    assert torch.allclose(advantages, tensor([1.75, 1.0, 0.0]))
    assert torch.allclose(returns, tensor([1.75, 2.0, 0.0]))


def test_gae_equals_the_explicit_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values = (torch.randn(3, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    found, _ = gae(rewards, values, torch.ones(3, 7, dtype=torch.bool), gamma=0.9, lam=0.8)
    after = torch.cat([values[:, 1:], torch.zeros(3, 1)], dim=1)
    deltas = rewards + 0.9 * after - values
    expected = torch.stack([sum(0.72 ** (u - t) * deltas[:, u] for u in range(t, 7)) for t in range(7)], dim=1)
    assert torch.allclose(found, expected)


def test_truncated_response_bootstraps_and_ended_one_does_not() -> None:
    rewards, values, mask = torch.zeros(2, 2), tensor([1.0, 1.0], [1.0, 1.0]), torch.ones(2, 2, dtype=torch.bool)
    advantages, _ = gae(rewards, values, mask, gamma=1.0, lam=1.0, bootstrap_B=tensor(3.0, 0.0))
    assert torch.allclose(advantages, tensor([2.0, 2.0], [-1.0, -1.0]))


def test_gae_carries_over_tokens_that_the_policy_did_not_choose() -> None:
    mask = torch.tensor([[True, False, True]])
    with_tool, _ = gae(tensor([1.0, NAN, 2.0]), tensor([0.5, NAN, 0.25]), mask, gamma=0.9, lam=0.8)
    without, _ = gae(tensor([1.0, 2.0]), tensor([0.5, 0.25]), torch.ones(1, 2, dtype=torch.bool), gamma=0.9, lam=0.8)
    assert torch.allclose(with_tool[:, [0, 2]], without)
    assert float(with_tool[0, 1]) == 0.0


def test_whitening_by_hand_and_blind_to_pads() -> None:
    values, mask = tensor([1.0, 3.0, NAN]), torch.tensor([[True, True, False]])
    assert torch.allclose(whiten(values, mask), tensor([-1.0, 1.0, 0.0]), atol=1e-6)
    assert torch.allclose(whiten(values, mask, shift_mean=False), tensor([1.0, 3.0, 0.0]), atol=1e-6)


def test_whitening_equal_values_gives_zero_not_infinity() -> None:
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert torch.equal(whiten(torch.full((1, 4), 2.0), mask), torch.zeros(1, 4))


def test_kl_estimators_by_hand_and_bounded() -> None:
    policy, reference = tensor(-1.0, -1000.0), tensor(-1.5, -1.0)
    assert torch.allclose(k1(policy, reference), tensor(0.5, -20.0))
    assert torch.allclose(k2(policy, reference), tensor(0.125, 200.0))
    assert math.isclose(float(k3(policy, reference)[0]), math.exp(-0.5) - 1 + 0.5)
    assert torch.isfinite(k3(policy, reference)).all()


def test_k1_and_k3_estimate_the_kl() -> None:
    generator = torch.Generator().manual_seed(1)
    p, q = (torch.randn(5, generator=generator, dtype=torch.float64).log_softmax(0) for _ in range(2))
    exact = float((p.exp() * (p - q)).sum())
    assert math.isclose(float((p.exp() * k1(p, q)).sum()), exact, abs_tol=1e-12)
    assert math.isclose(float((p.exp() * k3(p, q)).sum()), exact, abs_tol=1e-12)


def test_kl_controller_moves_by_the_clipped_error() -> None:
    controller = KlController(0.1, target=6.0, horizon=100.0)
    assert math.isclose(controller.after(60.0, 10).coefficient, 0.1 * (1 + 0.2 * 10 / 100))
    assert math.isclose(controller.after(5.4, 10).coefficient, 0.1 * (1 - 0.1 * 10 / 100))
    assert KlController(0.1).after(60.0, 10).coefficient == 0.1


def ppo_loss(ratio: float, advantage: float, **options: float | None) -> float:
    terms = ppo_policy_terms(
        tensor([math.log(ratio), NAN]),
        tensor([0.0, NAN]),
        tensor([advantage, NAN]),
        torch.tensor([[True, False]]),
        **{"clip_low": 0.2, "clip_high": 0.2, **options},  # type: ignore[arg-type]
    )
    return float(terms.loss)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [(1.5, 2.0, -2.4), (1.5, -2.0, 3.0), (0.5, 2.0, -1.0), (0.5, -2.0, 1.6), (1.1, 2.0, -2.2)],
)
def test_ppo_loss_by_hand(ratio: float, advantage: float, loss: float) -> None:
    assert math.isclose(ppo_loss(ratio, advantage), loss, rel_tol=1e-9)


def test_ppo_loss_asymmetric_and_dual_clip_by_hand() -> None:
    assert math.isclose(ppo_loss(1.5, 2.0, clip_high=0.3), -2.6, rel_tol=1e-9)
    assert math.isclose(ppo_loss(10.0, -2.0, dual_clip=3.0), 6.0, rel_tol=1e-9)


def test_ppo_figures_and_importance() -> None:
    mask = torch.tensor([[True, True]])
    terms = ppo_policy_terms(
        tensor([math.log(1.5), 0.0]), tensor([0.0, 0.0]), tensor([1.0, 1.0]), mask,
        clip_low=0.2, clip_high=0.2, importance_BR=tensor([0.5, 2.0]),
    )  # fmt: skip
    assert math.isclose(float(terms.loss), -(0.5 * 1.2 + 2.0 * 1.0), rel_tol=1e-9)
    assert float(terms.clipped) == 1.0
    assert math.isclose(float(terms.ratio), 2.5, rel_tol=1e-9)
    assert math.isclose(float(terms.ratio_max), 1.5, rel_tol=1e-9)
    assert math.isclose(float(terms.approx_kl), 0.5 - math.log(1.5), rel_tol=1e-9)
    old, sampled = tensor([0.0, -1.0])[None], tensor([-5.0, -0.5])[None]
    capped = importance_weights(old, sampled, mask, 2.0, bound="truncate", level="token")
    assert torch.allclose(capped, tensor([2.0, math.exp(-0.5)])[None])


def test_ppo_gradient_is_finite_where_pads_are_nan() -> None:
    logprobs = tensor([-1.0, NAN]).requires_grad_()
    mask = torch.tensor([[True, False]])
    terms = ppo_policy_terms(logprobs, tensor([-1.1, NAN]), tensor([1.0, NAN]), mask, clip_low=0.2, clip_high=0.2)
    terms.loss.backward()  # type: ignore[no-untyped-call]
    assert logprobs.grad is not None
    assert torch.allclose(logprobs.grad, tensor([-math.exp(0.1), 0.0]))


def test_ppo_gradient_numerically() -> None:
    generator = torch.Generator().manual_seed(2)
    old, advantages = (torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    start = (old + 0.1).requires_grad_()
    mask = torch.tensor([[True, True, False], [True, True, True]])

    def loss(logprobs: torch.Tensor) -> torch.Tensor:
        return ppo_policy_terms(logprobs, old, advantages, mask, clip_low=0.2, clip_high=0.2).loss

    assert torch.autograd.gradcheck(loss, (start,))


def test_value_loss_takes_the_worse_of_clipped_and_plain() -> None:
    mask = torch.tensor([[True, True, False]])
    # (1.5 - 1)^2 against (1.2 - 1)^2; (0 - 1)^2 against (0.8 - 1)^2 -> .25 and 1, halved.
    values, old, returns = tensor([1.5, 0.0, NAN]), tensor([1.0, 1.0, NAN]), tensor([1.0, 1.0, NAN])
    assert math.isclose(float(value_loss_sum(values, old, returns, mask, clip=0.2)), 0.625)
    # Here the clipped one is worse: the value ran to the return faster than allowed.
    found = value_loss_sum(tensor([2.0, 0.0, NAN]), tensor([1.0, 0.0, NAN]), tensor([2.0, 0.0, NAN]), mask, clip=0.2)
    assert math.isclose(float(found), 0.5 * 0.8**2)


def test_explained_variance_by_hand() -> None:
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert math.isclose(explained_variance(tensor([0.0, 1.0]), tensor([0.0, 2.0]), mask), 0.75)
    assert explained_variance(tensor([0.0, 1.0]), tensor([1.0, 1.0]), mask) == 0.0


def test_bradley_terry_by_hand() -> None:
    found = bradley_terry(tensor(2.0, 2.0), tensor(1.0, 1.0), margin_N=tensor(0.0, 0.5))
    assert torch.allclose(found, tensor(math.log1p(math.exp(-1.0)), math.log1p(math.exp(-0.5))))
    smoothed = bradley_terry(tensor(1.0), tensor(0.0), label_smoothing=0.1)
    assert math.isclose(float(smoothed), 0.9 * math.log1p(math.exp(-1)) + 0.1 * math.log1p(math.exp(1)))


def test_a_tie_is_least_where_scores_are_equal_whatever_the_margin() -> None:
    difference = tensor(0.0).requires_grad_()
    loss = bradley_terry(difference, tensor(0.0), margin_N=3.0, tie_N=torch.tensor([True])).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert math.isclose(float(loss.detach()), math.log(2))
    assert difference.grad is not None
    assert float(difference.grad[0]) == 0.0


def test_plackett_luce_of_two_is_bradley_terry() -> None:
    pair = plackett_luce(tensor(0.3, 1.1), [1, 0])
    assert math.isclose(float(pair), float(bradley_terry(tensor(1.1), tensor(0.3))[0]))


def test_plackett_luce_by_hand() -> None:
    a, b, c = 0.5, -0.2, 1.0
    expected = math.log(sum(map(math.exp, (a, b, c)))) - c + math.log(math.exp(a) + math.exp(b)) - a
    assert math.isclose(float(plackett_luce(tensor(a, b, c), [1, 2, 0])), expected)


def test_plackett_luce_ties_by_efron() -> None:
    a, b, c = 0.5, -0.2, 1.0
    both = math.exp(a) + math.exp(b)
    expected = math.log(both + math.exp(c)) + math.log(0.5 * both + math.exp(c)) - a - b
    assert math.isclose(float(plackett_luce(tensor(a, b, c), [0, 0, 1])), expected)


def test_rankings_give_gradients_that_order_the_scores() -> None:
    scores = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    plackett_luce(scores, [0, 1, 1]).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert scores.grad[0] < 0 < scores.grad[1]
    assert math.isclose(float(scores.grad[1]), float(scores.grad[2]))


def test_ratings_and_centring_by_hand() -> None:
    assert math.isclose(float(rating_loss(tensor(0.0, 0.0), tensor(0.2, 1.0))), math.log(2))
    scores = tensor(2.0).requires_grad_()
    rating_loss(scores, tensor(0.25)).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert math.isclose(float(scores.grad[0]), 1 / (1 + math.exp(-2)) - 0.25)
    assert float(centring(tensor(1.0, -3.0))) == 4.0


def test_masked_mean_ignores_pads() -> None:
    assert float(masked_mean(tensor(1.0, 3.0, NAN), torch.tensor([True, True, False]))) == 2.0
