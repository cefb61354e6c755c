"""Confidence intervals."""

from __future__ import annotations

import math

Z95 = 1.959963984540054


def wilson(successes: float, total: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of `total` trials, 95 % by default. A tie may count as half a success.

    ValueError unless 0 <= successes <= total and total > 0.
    """
    if total <= 0 or not 0 <= successes <= total:
        raise ValueError(f"{successes} of {total} is not a share")
    share = successes / total
    scale = 1 + z * z / total
    middle = (share + z * z / (2 * total)) / scale
    reach = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / scale
    # Rounding must not leave 0 to 1: the interval of 0 successes starts at 0.
    return max(0.0, middle - reach), min(1.0, middle + reach)
