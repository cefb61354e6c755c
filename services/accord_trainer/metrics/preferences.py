"""How well scores agree with preferences: accuracy, calibration, length bias."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor

from accord.trainer import v1 as trainer_v1

BINS = 10


def preference_metrics(
    scores: Sequence[Tensor], examples: Sequence[trainer_v1.PreferenceExample], lengths: Sequence[Sequence[int]]
) -> dict[str, float]:
    """The metrics of a batch; an undefined one is left out.

    `accuracy` and `accuracy/<source>` over ordered pairs of answers (tied preferences are left out, tied scores count
    half), `pairs` counted, `calibration_error` (ECE of sigmoid(difference), 10 bins), `score_mean`, `score_std`,
    `length_correlation` of score and tokens, and `longer_accuracy`: that of "the longer is better" on the same pairs.

    `scores` are (M, K) of M heads; their mean is evaluated. For an ensemble also: `uncertainty`, the standard deviation
    over heads (of the population), averaged over answers, and `disagreement`, the fraction of pairs and heads that
    order the two answers differently from the mean (an equal score counts half).
    """
    differences: dict[str, list[float]] = defaultdict(list)
    longer: list[float] = []
    differing: list[float] = []
    for scores_MK, example, tokens_K in zip(scores, examples, lengths, strict=True):
        scores_K = scores_MK.mean(0)
        for better, worse in ordered_pairs(example):
            differences[example.source].append(float(scores_K[better] - scores_K[worse]))
            longer.append(float(tokens_K[better] - tokens_K[worse]))
            differing.append(_disagreement(scores_MK[:, better] - scores_MK[:, worse]))
    every = [difference for group in differences.values() for difference in group]
    flat_MN = torch.cat(list(scores), dim=1).double()
    flat_N = flat_MN.mean(0)
    found = {
        "score_mean": float(flat_N.mean()),
        "score_std": float(flat_N.std(correction=0)),
        "pairs": float(len(every)),
    }
    if every:
        found["accuracy"] = _accuracy(every)
        found["calibration_error"] = calibration_error(every)
        found["difference_mean"] = sum(every) / len(every)
        found["longer_accuracy"] = _accuracy(longer)
    if len(flat_MN) > 1:
        found["uncertainty"] = float(flat_MN.std(0, correction=0).mean())
        if every:
            found["disagreement"] = sum(differing) / len(differing)
    found |= {f"accuracy/{source}": _accuracy(group) for source, group in differences.items() if source}
    lengths_N = torch.tensor([float(length) for one in lengths for length in one], dtype=torch.float64)
    if float(lengths_N.std(correction=0)) > 0 and found["score_std"] > 0:
        found["length_correlation"] = float(torch.corrcoef(torch.stack([flat_N, lengths_N]))[0, 1])
    return found


def annotator_accuracy(scores: Sequence[Tensor], examples: Sequence[trainer_v1.PreferenceExample]) -> dict[str, float]:
    """`accuracy/annotator/<id>`: the share of pairs that the mean of the scores (M, K) orders as the annotator did."""
    found: dict[str, list[float]] = defaultdict(list)
    for scores_MK, example in zip(scores, examples, strict=True):
        scores_K = scores_MK.mean(0)
        for better, worse in ordered_pairs(example):
            found[example.annotator].append(float(scores_K[better] - scores_K[worse]))
    return {f"accuracy/annotator/{name}": _accuracy(group) for name, group in found.items() if name}


def pair_accuracy(values: Sequence[Tensor], examples: Sequence[trainer_v1.PreferenceExample]) -> dict[str, float]:
    """`pairs`, and if there are any `accuracy` and `accuracy/<source>`: the fraction of ordered pairs of answers whose
    better one has the higher of an example's `values`, (K,); equal ones count half."""
    found: dict[str, list[float]] = defaultdict(list)
    for values_K, example in zip(values, examples, strict=True):
        found[example.source] += [float(values_K[better] - values_K[worse]) for better, worse in ordered_pairs(example)]
    every = [difference for group in found.values() for difference in group]
    overall = {"accuracy": _accuracy(every)} if every else {}
    by_source = {f"accuracy/{source}": _accuracy(group) for source, group in found.items() if source and group}
    return {"pairs": float(len(every)), **overall, **by_source}


def ordered_pairs(example: trainer_v1.PreferenceExample) -> Iterator[tuple[int, int]]:
    """(better, worse) indices of the answers that the example ranks differently."""
    if example.HasField("ratings"):
        ranks = [-value for value in example.ratings.values]
    else:
        ranks = [float(value) for value in example.ranks.values]
    for a, b in combinations(range(len(ranks)), 2):
        if ranks[a] != ranks[b]:
            yield (a, b) if ranks[a] < ranks[b] else (b, a)


def calibration_error(differences: Sequence[float]) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3) of the probability of the answer that
    the model prefers, against the share of people who preferred it too."""
    bins: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for difference in differences:
        confidence = 1.0 / (1.0 + math.exp(-min(abs(difference), 500.0)))
        right = 0.5 if difference == 0 else float(difference > 0)
        bins[min(int((confidence - 0.5) * 2 * BINS), BINS - 1)].append((confidence, right))
    gaps = (abs(sum(c for c, _ in entries) - sum(r for _, r in entries)) for entries in bins.values())
    return sum(gaps) / len(differences)


def _disagreement(difference_M: Tensor) -> float:
    mean = float(difference_M.mean())
    return sum(0.5 if d == 0 or mean == 0 else float((d > 0) != (mean > 0)) for d in difference_M.tolist()) / len(
        difference_M
    )


def _accuracy(differences: Sequence[float]) -> float:
    return sum(0.5 if d == 0 else float(d > 0) for d in differences) / len(differences)
