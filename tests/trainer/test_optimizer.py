"""The optimizer: clipping, Adam's step, and the schedule of the learning rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from accord_trainer.algorithm import AlgorithmOptions
from accord_trainer.model.optimizer import Group, Optimizer


def test_the_gradient_is_clipped_and_the_rate_falls() -> None:
    """By hand: a gradient of norm 5 clipped to 1, the first step of Adam with a large epsilon, half way down."""
    parameter = nn.Parameter(torch.zeros(2))
    options = AlgorithmOptions(
        learning_rate=1.0, max_grad_norm=1.0, adam_epsilon=1.0, warmup_updates=0, decay_updates=4
    )
    optimizer = Optimizer({"policy": Group(1.0, {"p": parameter})}, options)
    factors = []
    for _ in range(5):
        factors.append(optimizer.rate_factor())
        parameter.grad = torch.tensor([3.0, 4.0])
        norms = optimizer.update()
        if len(factors) == 1:
            # Bias-corrected moments of the clipped gradient g are g and g^2: the step is g / (|g| + 1).
            assert parameter.tolist() == pytest.approx([-0.6 / 1.6, -0.8 / 1.8], rel=1e-5)
    assert norms["policy"] == pytest.approx(5.0)
    assert factors == [1.0, 0.75, 0.5, 0.25, 0.0]
