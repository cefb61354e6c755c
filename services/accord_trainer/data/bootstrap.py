"""Bootstrap weights of an ensemble's members: each member learns from its own resample of the examples."""

from __future__ import annotations

import hashlib
import math
from typing import Literal

import torch
from torch import Tensor

from accord.trainer import v1 as trainer_v1

Bootstrap = Literal["poisson", "double_or_nothing", "none"]


def bootstrap_weights(example: trainer_v1.PreferenceExample, members: int, seed: int, kind: Bootstrap) -> Tensor:
    """The number of times the example is in each member's resample, (M,), mean 1; always 1 for a single model.

    `poisson`: Poisson(1), the online bootstrap of Oza and Russell 2001; `double_or_nothing`: 0 or 2, Owen and Eckles
    2012. A function of seed and content alone, so every epoch, repeat and rank gets the same; the source and the
    weight of the example have no influence.
    """
    if members == 1 or kind == "none":
        return torch.ones(members)
    content = trainer_v1.PreferenceExample()
    content.CopyFrom(example)
    for field in ("source", "weight", "annotator"):
        content.ClearField(field)
    data = content.SerializeToString(deterministic=True)
    uniforms = [_uniform(seed, member, data) for member in range(members)]
    if kind == "double_or_nothing":
        return torch.tensor([2.0 if uniform < 0.5 else 0.0 for uniform in uniforms])
    return torch.tensor([float(_poisson(uniform)) for uniform in uniforms])


def _uniform(seed: int, member: int, data: bytes) -> float:
    """On [0, 1)."""
    digest = hashlib.sha256(f"{seed}/{member}/".encode() + data).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53


def _poisson(uniform: float) -> int:
    """The quantile of Poisson(1)."""
    count, probability = 0, math.exp(-1.0)
    below = probability
    while uniform >= below and count < 20:  # beyond this a double has no precision left
        count += 1
        probability /= count
        below += probability
    return count
