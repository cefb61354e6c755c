"""Moments and whitening over masked entries.

Whitening of advantages and rewards: Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences"
(`whiten` of the released code; arXiv 2403.17031 section 3 tells why rewards keep their mean).
"""

from __future__ import annotations

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-8


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """The sum of `values` where `mask` is true (both of one shape), as a scalar. What the mask excludes may be NaN."""
    return torch.where(mask, values, 0.0).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of `values` where `mask` is true; the mask must not be empty."""
    return masked_sum(values, mask) / mask.sum()


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """The population variance (divided by the count) of `values` where `mask` is true."""
    centred = values - masked_mean(values, mask)
    return masked_mean(centred * centred, mask)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """`values` with variance 1 and, when `shift_mean`, mean 0 over the masked entries; 0 where the mask is false.

    Rewards are whitened without shifting the mean (the sign of a reward means something), advantages with it. Entries
    that are all equal have no variance: they come out as 0 (shifted), not as a division by it.
    """
    mean = masked_mean(values, mask)
    whitened = (values - mean) * torch.rsqrt(masked_variance(values, mask) + VARIANCE_FLOOR)
    return torch.where(mask, whitened if shift_mean else whitened + mean, 0.0)
