"""How much a comparison is expected to tell an ensemble of reward models, from each member's scores: pure functions.

Member m thinks that answer a beats b with probability p_m = sigmoid(r_m(a) - r_m(b)) (Bradley-Terry).

- disagreement: the deviation of p_m over members (query by committee).
- information: H(mean p) - mean H(p), the mutual information of the answer and the member that is right (BALD; Houlsby
  et al., "Bayesian Active Learning for Classification and Preference Learning", 2011): high where members are sure and
  contradict one another, low where all of them expect a coin flip.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations


def probabilities(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Each member's probability that the first answer wins, from the members' scores of both."""
    return [_sigmoid(a - b) for a, b in zip(first, second, strict=True)]


def disagreement(first: Sequence[float], second: Sequence[float]) -> float:
    """Deviation over members of the probability that the first wins, 0 to 1/2."""
    return statistics.pstdev(probabilities(first, second))


def information(first: Sequence[float], second: Sequence[float]) -> float:
    """Expected information gain of the answer, nats, 0 to log 2."""
    found = probabilities(first, second)
    return max(0.0, _entropy(statistics.fmean(found)) - statistics.fmean(map(_entropy, found)))


ACQUISITIONS: Mapping[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    "disagreement": disagreement,
    "information": information,
}


def value_of(selection: str, scores: Sequence[Sequence[float]]) -> float:
    """What asking about some answers is worth: the mean over their pairs. `scores`: per answer, one of each member."""
    measure = ACQUISITIONS[selection]
    return statistics.fmean(measure(one, other) for one, other in combinations(scores, 2))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else 1 - 1 / (1 + math.exp(value))


def _entropy(probability: float) -> float:
    return -sum(p * math.log(p) for p in (probability, 1 - probability) if p > 0)
