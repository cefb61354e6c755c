"""The reliability of each annotator, and the probability that each choice is right, from the choices alone.

A. P. Dawid and A. M. Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm" (1979), with
one parameter per annotator: annotator a names the true class with probability q_a, and otherwise another class in
proportion to its overall frequency. The Beta prior has mean 3/4 and strength 4, so that a few choices say little and a
pair judged once keeps its annotator near the prior. Expectation: P(class of a pair | choices, q). Maximisation: q_a =
the expected fraction of a's choices that are right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CLASSES = 3  # first better, second better, tie
PRIOR_RIGHT, PRIOR_WRONG = 3.0, 1.0
MOST_ROUNDS = 200
TOLERANCE = 1e-6

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """`accuracy`: q of each annotator; `right`: of each vote, the probability that it names the true class."""

    accuracy: Floats
    right: Floats


def estimate(pairs: Ints, annotators: Ints, labels: Ints, known: Mapping[int, int] | None = None) -> Reliability:
    """Votes as three arrays of equal length: the pair (0, 1, ...), the annotator (0, 1, ...) and the class.

    `known`: true classes of some pairs (gold). Deterministic: the same votes give the same numbers.
    """
    count, workers = int(pairs.max(initial=-1)) + 1, int(annotators.max(initial=-1)) + 1
    if not len(pairs):
        return Reliability(np.empty(0), np.empty(0))
    named = np.bincount(labels, minlength=CLASSES) + 1e-3
    named = named / named.sum()
    # The order of a pair's two answers carries no meaning, so neither is more likely to be better.
    prior = np.array([(1 - named[2]) / 2, (1 - named[2]) / 2, named[2]])
    # slip[z, l]: the probability of naming l, given that the choice is wrong and the truth is z.
    slip = np.tile(named, (CLASSES, 1))
    np.fill_diagonal(slip, 0.0)
    slip /= slip.sum(axis=1, keepdims=True)
    fixed = np.full(count, -1, dtype=np.int64)
    for pair, label in (known or {}).items():
        fixed[pair] = label
    votes = np.bincount(annotators, minlength=workers)
    accuracy = np.full(workers, PRIOR_RIGHT / (PRIOR_RIGHT + PRIOR_WRONG))
    right = np.zeros(len(pairs))
    for _ in range(MOST_ROUNDS):
        posterior = _posterior(pairs, annotators, labels, accuracy, prior, slip, fixed)
        right = posterior[pairs, labels]
        better = (np.bincount(annotators, right, workers) + PRIOR_RIGHT) / (votes + PRIOR_RIGHT + PRIOR_WRONG)
        moved = float(np.abs(better - accuracy).max())
        accuracy = better
        if moved < TOLERANCE:
            break
    return Reliability(accuracy, right)


def weights(right: Floats) -> Floats:
    """The weight of votes in training: max(0, 2 P(right) - 1), the part of a label that is better than chance."""
    return np.maximum(0.0, 2.0 * right - 1.0)


def normalised(values: Floats) -> Floats:
    """The values scaled to mean 1; all 1 if all are 0."""
    mean = float(values.mean()) if len(values) else 0.0
    return values / mean if mean > 0 else np.ones_like(values)


def _posterior(
    pairs: Ints, annotators: Ints, labels: Ints, accuracy: Floats, prior: Floats, slip: Floats, fixed: Ints
) -> Floats:
    """P(class) of every pair, [pairs, classes]."""
    count, quality = len(fixed), accuracy[annotators]
    logs = np.tile(np.log(prior), (count, 1))
    for truth in range(CLASSES):
        given = np.where(labels == truth, quality, (1 - quality) * slip[truth, labels])
        logs[:, truth] += np.bincount(pairs, np.log(np.maximum(given, 1e-300)), count)
    likely = np.exp(logs - logs.max(axis=1, keepdims=True))
    posterior = likely / likely.sum(axis=1, keepdims=True)
    gold = fixed >= 0
    posterior[gold] = 0.0
    posterior[gold, fixed[gold]] = 1.0
    return np.asarray(posterior)
