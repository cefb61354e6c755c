"""Parses an annotator's form. Pure functions; answers are named by their place on the page, from 0."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from accord.errors import InvalidArgument
from accord.preference import v1 as preference_v1
from accord_console.annotation.task_page import Slip

WORST, BEST = 1, 5


def comparison(shown: Sequence[str], choice: str) -> preference_v1.Comparison:
    """`0` or `1`: that answer is better; `tie`: a tie. `shown`: completion ids in the order shown."""
    first, second = shown
    if choice == "tie":
        return preference_v1.Comparison(chosen_id=first, rejected_id=second, tie=True)
    if choice not in ("0", "1"):
        raise InvalidArgument.at("choice", "choose an answer, or that they are equally good")
    chosen, rejected = (first, second) if choice == "0" else (second, first)
    return preference_v1.Comparison(chosen_id=chosen, rejected_id=rejected)


def ranking(shown: Sequence[str], ranks: str) -> preference_v1.Ranking:
    """`2 0=1 3`: the answer at place 2 is best, then 0 and 1 tied, then 3. Each answer must occur exactly once."""
    groups = [group.split("=") for group in ranks.split()]
    places = [place for group in groups for place in group]
    if sorted(places) != sorted(str(place) for place in range(len(shown))):
        raise InvalidArgument.at("ranks", "must contain every answer exactly once")
    return preference_v1.Ranking(
        ranks=[preference_v1.Rank(completion_ids=[shown[int(place)] for place in group]) for group in groups]
    )


def rating(completion_id: str, value: str) -> preference_v1.Rating:
    """The rating of the answer, from 1 (worst) to 5 (best)."""
    number = _number(value, WORST, BEST, "value")
    return preference_v1.Rating(completion_id=completion_id, value=number, min=WORST, max=BEST)


def criteria(slip: Slip, form: Mapping[str, str]) -> list[preference_v1.Rating]:
    """The ratings by criterion; `rate-0-1` is answer 0 by criterion 1. Empty ones are left out."""
    found = []
    for place, completion_id in enumerate(slip.shown):
        for number, (name, low, high) in enumerate(slip.criteria):
            field = f"rate-{place}-{number}"
            if form.get(field):
                value = _number(form[field], low, high, field)
                found.append(
                    preference_v1.Rating(completion_id=completion_id, value=value, min=low, max=high, criterion=name)
                )
    return found


FLAGS = {
    "unsafe": ("harmful or disturbing", preference_v1.FLAG_REASON_UNSAFE),
    "personal": ("about a real person", preference_v1.FLAG_REASON_PERSONAL_DATA),
    "broken": ("empty, cut off or unreadable", preference_v1.FLAG_REASON_BROKEN),
    "unclear": ("unclear question", preference_v1.FLAG_REASON_UNCLEAR),
    "all-bad": ("every answer is too bad to compare", preference_v1.FLAG_REASON_ALL_BAD),
    "other": ("something else (describe it in the comment)", preference_v1.FLAG_REASON_OTHER),
}


def flag_reason(reason: str) -> preference_v1.FlagReason.ValueType:
    """The flag reason of a form."""
    if reason not in FLAGS:
        raise InvalidArgument.at("reason", "choose what is wrong with this task")
    return FLAGS[reason][1]


def _number(text: str, low: float, high: float, field: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise InvalidArgument.at(field, f"enter a number from {low:g} to {high:g}")
    return number
