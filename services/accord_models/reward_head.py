"""The input of a reward model's head: the same code in the trainer and in the reward service.

A model therefore scores exactly the tokens that it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from accord_models.loading import Pooling, reward_head


def has_bare_head(model: PreTrainedModel) -> bool:
    """Whether the head is one linear layer on a causal trunk's states; encoders pool in their own ways."""
    return getattr(model, "score", None) is reward_head(model)


def head_tokens(pooling: Pooling, start: int, end: int) -> range:
    """The tokens of a response at [start, end) that the head reads: the last one, or all for their mean."""
    return range(start, end) if pooling == "mean" else range(end - 1, end)


def pool(values_WTD: Tensor, tokens: Sequence[Sequence[int]]) -> Tensor:
    """The mean over each response's tokens, (N, D), float32.

    `tokens`: for each of N responses the places, in values flattened to (W * T, D), that `head_tokens` names.
    """
    places = torch.tensor([place for each in tokens for place in each], device=values_WTD.device)
    # index_select, unlike indexing, adds gradients up in a fixed order: repeats are bit-equal.
    values_ND = values_WTD.flatten(0, 1).index_select(0, places).float()
    if len(values_ND) == len(tokens):
        return values_ND
    return torch.stack([each.mean(0) for each in values_ND.split([len(each) for each in tokens])])  # type: ignore[no-untyped-call]
