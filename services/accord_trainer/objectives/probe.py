"""Fitting a linear head: a penalised loss over fixed states, minimised by full-batch L-BFGS (Liu and Nocedal 1989).

N answers, D the length of a state, M heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MOST_ITERATIONS = 200


def deviations(states: Sequence[Tensor]) -> Tensor:
    """The root mean square distance of the states, (K, D) per example, from their example's mean, (D,), never 0.

    Two answers to one prompt differ by twice that. If no example has two answers: the distance from the mean of all.
    """
    several = [states_KD for states_KD in states if len(states_KD) > 1]
    centred = [states_KD - states_KD.mean(0) for states_KD in several]
    if not centred:
        whole_ND = torch.cat(list(states))
        centred = [whole_ND - whole_ND.mean(0)]
    deviation_D = torch.cat(centred).square().mean(0).sqrt()
    return deviation_D.clamp(min=1e-6 * float(deviation_D.max().clamp(min=1e-6)))


def fit(
    states_ND: Tensor,
    loss: Callable[[Tensor], Tensor],
    members: int,
    penalty: float,
    deviation_D: Tensor,
    check_stopped: Callable[[], None],
) -> tuple[Tensor, int]:
    """The head (M, D) that minimises loss(scores (M, N)) + penalty / 2 * |2 * head * deviation|^2, and the number of
    evaluations of the loss. Starts from 0, so the result depends only on the arguments. float64.

    The factor 2 makes it logistic regression on differences that have deviation 1.
    """
    scale_D = 2.0 * deviation_D
    scaled_ND = states_ND / scale_D
    weights_MD = torch.zeros(members, states_ND.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weights_MD], max_iter=MOST_ITERATIONS, tolerance_grad=1e-6, tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )  # fmt: skip
    evaluations = 0

    def closure() -> Tensor:
        nonlocal evaluations
        check_stopped()
        evaluations += 1
        solver.zero_grad()
        with torch.enable_grad():
            value = loss(weights_MD @ scaled_ND.T) + 0.5 * penalty * weights_MD.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(closure)  # type: ignore[no-untyped-call]
    return (weights_MD / scale_D).detach(), evaluations
