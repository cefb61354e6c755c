"""Estimators of KL(policy || reference) from sampled tokens, and the controller of its coefficient.

With x drawn from the policy and d = log policy(x) - log reference(x), nats (J. Schulman, "Approximating KL
Divergence", 2020): k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d. k1 is unbiased and belongs into the reward; k3 is also
unbiased and never negative, but its gradient is not that of the KL, so it is a figure to report.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LOG_RATIO_BOUND = 20.0


def log_ratio(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """log policy - log reference of each token, within +-20 so that one odd token cannot overflow what follows."""
    return (logprobs - reference_logprobs).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The k1 estimate of each token, nats; may be negative."""
    return log_ratio(logprobs, reference_logprobs)


def k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The k2 estimate of each token, nats; biased, low variance, with the gradient of the KL."""
    return 0.5 * log_ratio(logprobs, reference_logprobs).square()


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The k3 estimate of each token, nats; never negative."""
    ratio = log_ratio(logprobs, reference_logprobs)
    return torch.expm1(-ratio) + ratio


@dataclass(frozen=True)
class KlController:
    """The KL coefficient and how it moves: fixed where `target` is None, else proportional control.

    Ziegler et al. 2019, section 2.2: e = clip(KL / target - 1, -0.2, 0.2); coefficient *= 1 + e * n / horizon, with KL
    summed over the tokens of a response and averaged over n responses.
    """

    coefficient: float
    target: float | None = None
    horizon: float = 10_000.0

    def after(self, kl_nats: float, episodes: int) -> KlController:
        """The controller after `episodes` responses of `kl_nats` each."""
        if self.target is None:
            return self
        error = min(max(kl_nats / self.target - 1.0, -0.2), 0.2)
        return KlController(self.coefficient * (1.0 + error * episodes / self.horizon), self.target, self.horizon)
