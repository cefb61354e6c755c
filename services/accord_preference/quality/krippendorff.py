"""Krippendorff's alpha: agreement beyond chance, for any number of annotators and with missing answers.

K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011). A unit holds the annotators' values for one item,
one value each. Units with fewer than two values say nothing about agreement and are left out. alpha = 1 - D_o / D_e,
with observed over expected disagreement: 1 is perfect, 0 is chance, and below 0 is worse than chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence


def nominal(units: Iterable[Sequence[Hashable]]) -> float | None:
    """alpha if any two different values disagree equally; None if no values are comparable or none differ."""
    values: Counter[Hashable] = Counter()
    observed = 0.0
    for unit in units:
        size = len(unit)
        if size < 2:
            continue
        counts = Counter(unit)
        values.update(counts)
        observed += (size * size - sum(count * count for count in counts.values())) / (size - 1)
    total = sum(values.values())
    expected = total * total - sum(count * count for count in values.values())
    return 1.0 - (total - 1) * observed / expected if expected else None


def interval(units: Iterable[Sequence[float]]) -> float | None:
    """alpha if two values disagree by the square of their difference; None as in `nominal`."""
    observed = sum_all = squares_all = 0.0
    total = 0
    for unit in units:
        size = len(unit)
        if size < 2:
            continue
        # Computed from the unit's mean, because the difference of two large sums would lose precision.
        middle = sum(unit) / size
        observed += 2 * size * sum((value - middle) ** 2 for value in unit) / (size - 1)
        total += size
        sum_all += sum(unit)
        squares_all += sum(value * value for value in unit)
    expected = 2 * (total * squares_all - sum_all * sum_all)
    return 1.0 - (total - 1) * observed / expected if expected > 1e-12 * total * max(squares_all, 1e-300) else None
