"""Losses of reward models: pairs, rankings with ties, ratings. Each returns one loss per example.

Scores may have leading dimensions, (..., K): the members of an ensemble, each with its own loss, (...).

- Pairs: Bradley and Terry 1952; margin as in Touvron et al. 2023 (Llama 2), arXiv 2307.09288, equation 2; centring as
  in Eisenstein et al. 2023, arXiv 2312.09244, equation 2.
- Rankings: Plackett 1975, Luce 1959; ties by Efron 1977 (the Cox partial likelihood is the same function).
- Ratings: logistic regression of a fractional response, Papke and Wooldridge 1996.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def bradley_terry(
    first_N: Tensor,
    second_N: Tensor,
    *,
    margin_N: Tensor | float = 0.0,
    tie_N: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log sigmoid(first - second - margin) of each pair; with smoothing s: (1 - s) of that and s of the reverse.

    The first is the better one. A tie counts half for either order, without margin, so it pulls the scores together.
    """
    difference_N = first_N - second_N
    smoothing_N = torch.full_like(difference_N, label_smoothing)
    if tie_N is not None:
        smoothing_N = torch.where(tie_N, 0.5, smoothing_N)
        margin_N = torch.where(tie_N, 0.0, torch.as_tensor(margin_N, dtype=first_N.dtype))
    logits_N = difference_N - margin_N
    return -(1.0 - smoothing_N) * functional.logsigmoid(logits_N) - smoothing_N * functional.logsigmoid(-logits_N)


def plackett_luce(scores_K: Tensor, ranks: list[int]) -> Tensor:
    """The negative log-likelihood of a ranking (`ranks[i]`: 0 the best, equal ranks tie), (...).

    Without ties: the sum over answers of log(sum of exp of it and all ranked below) - score. A group of g tied answers
    is removed one by one, each time with 1/g of the group's weight removed from the denominator (Efron).
    """
    ranks_K = torch.tensor(ranks, device=scores_K.device)
    loss = scores_K.new_zeros(scores_K.shape[:-1])
    for rank in sorted(set(ranks)):
        tied_G = scores_K[..., ranks_K == rank]
        below = scores_K[..., ranks_K > rank]
        tied = tied_G.shape[-1]
        if below.shape[-1] == 0 and tied == 1:
            continue  # the last one is chosen with certainty
        for taken in range(tied):
            share = torch.tensor(1.0 - taken / tied, dtype=scores_K.dtype, device=scores_K.device)
            loss = loss + torch.logsumexp(torch.cat([tied_G + share.log(), below], dim=-1), dim=-1)
        loss = loss - tied_G.sum(-1)
    return loss


def rating_loss(scores_K: Tensor, ratings_K: Tensor) -> Tensor:
    """Cross-entropy between sigmoid(score) and a rating on 0..1, averaged over the K answers, (...)."""
    wide_K = ratings_K.expand_as(scores_K)
    return functional.binary_cross_entropy_with_logits(scores_K, wide_K, reduction="none").mean(-1)


def centring(scores_K: Tensor) -> Tensor:
    """The square of the sum of an example's scores: added with a small weight it keeps the mean reward near 0."""
    return scores_K.sum(-1).square()
