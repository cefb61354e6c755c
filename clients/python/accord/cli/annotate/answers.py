"""Parses an annotator's keys and lines. Pure functions; answers are numbered from 1 in the order shown."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from accord.preference import v1 as preference_v1

WORST, BEST = 1, 5


def comparison(shown: Sequence[str], key: str) -> preference_v1.Comparison:
    """`1` or `2`: that answer is better; `t`: a tie. `shown`: the two completion ids in the order shown."""
    first, second = shown
    if key == "t":
        return preference_v1.Comparison(chosen_id=first, rejected_id=second, tie=True)
    if key not in ("1", "2"):
        raise ValueError(f"press 1, 2 or t, not {key!r}")
    chosen, rejected = (first, second) if key == "1" else (second, first)
    return preference_v1.Comparison(chosen_id=chosen, rejected_id=rejected)


def ranking(shown: Sequence[str], line: str) -> preference_v1.Ranking:
    """`2 1=3 4`: answer 2 is best, then 1 and 3 tied, then 4. Raises ValueError with the problem."""
    groups = [
        re.split(r"\s*=\s*", group) for group in re.split(r"[\s>,]+", re.sub(r"\s*=\s*", "=", line.strip())) if group
    ]
    numbers = [number for group in groups for number in group]
    wrong = [number for number in numbers if not number.isdecimal() or not 1 <= int(number) <= len(shown)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not one of the answers 1 to {len(shown)}")
    given = [int(number) for number in numbers]
    twice = sorted({number for number in given if given.count(number) > 1})
    missing = [number for number in range(1, len(shown) + 1) if number not in given]
    if twice:
        raise ValueError(f"answer {twice[0]} is given twice")
    if missing:
        raise ValueError(f"answer {missing[0]} is missing: name each of 1 to {len(shown)} once")
    ranks = [preference_v1.Rank(completion_ids=[shown[int(number) - 1] for number in group]) for group in groups]
    return preference_v1.Ranking(ranks=ranks)


def rating(completion_id: str, line: str) -> preference_v1.Rating:
    """A number from 1 (worst) to 5 (best). Raises ValueError with the problem."""
    try:
        value = float(line.replace(",", "."))
    except ValueError:
        raise ValueError(f"{line!r} is not a number") from None
    if not math.isfinite(value) or not WORST <= value <= BEST:
        raise ValueError(f"enter a number from {WORST} to {BEST}")
    return preference_v1.Rating(completion_id=completion_id, value=value, min=WORST, max=BEST)
