"""Judgements: validation and canonical form."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from accord.errors import InvalidArgument
from accord.preference import v1 as preference_v1

Judged = preference_v1.Feedback | preference_v1.ImportRecord | preference_v1.KnownAnswer
MOST_TEXT = 10_000
KIND_NAMES = {
    preference_v1.TASK_KIND_COMPARISON: "comparison",
    preference_v1.TASK_KIND_RANKING: "ranking",
    preference_v1.TASK_KIND_RATING: "rating",
}


@dataclass(frozen=True)
class Judgement:
    """A valid judgement. `value`: its canonical form; `fields`: completion id -> the field that names it, in order.

    Interchangeable parts are sorted: the two completions of a tie, and completions that share a rank.
    """

    kind: int
    value: dict[str, Any]
    fields: dict[str, str]

    @property
    def completion_ids(self) -> tuple[str, ...]:
        """The judged completions, best first."""
        return tuple(self.fields)


def read_judgement(message: Judged, path: str, resolve: Callable[[str, str], str] = lambda _, name: name) -> Judgement:
    """The judgement in `message`. Errors name its fields with the prefix `path`, for instance `feedback.`.

    `resolve(field, name)` gives the permanent id of the completion that the message calls `name`. InvalidArgument names
    the field if a completion is compared with itself or ranked twice, or a number is off its scale or not finite.
    """
    which = message.WhichOneof("judgement")
    if which == "comparison":
        return _comparison(message.comparison, f"{path}comparison.", resolve)
    if which == "ranking":
        return _ranking(message.ranking, f"{path}ranking.", resolve)
    if which == "rating":
        return _rating(message.rating, f"{path}rating.", resolve)
    raise InvalidArgument.at(f"{path}judgement", "set one of comparison, ranking, rating")


def read_criteria(
    ratings: Sequence[preference_v1.Rating],
    path: str,
    judged: Collection[str],
    resolve: Callable[[str, str], str] = lambda _, name: name,
) -> list[dict[str, Any]]:
    """The canonical form of the ratings by criterion of the `judged` completions, sorted by criterion and completion.

    InvalidArgument names, with the prefix `path`, a rating that has no criterion, is repeated, or is of a completion
    that was not judged.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for number, rating in enumerate(ratings):
        field = f"{path}criteria[{number}]."
        value = _rating(rating, field, resolve).value
        if not rating.criterion:
            raise InvalidArgument.at(f"{field}criterion", "must be set to what is rated, for example helpful")
        if value["completion_id"] not in judged:
            raise InvalidArgument.at(f"{field}completion_id", "is not one of the completions that the feedback judges")
        if found.setdefault((rating.criterion, value["completion_id"]), value) is not value:
            raise InvalidArgument.at(f"{field}criterion", f"rates the same completion by {rating.criterion!r} again")
    return [found[key] for key in sorted(found)]


def read_text(text: str, field: str) -> str:
    """A comment or instructions. InvalidArgument if it is too long."""
    if len(text) > MOST_TEXT:
        raise InvalidArgument.at(field, f"has {len(text)} characters; at most {MOST_TEXT} are accepted")
    return text


def write_judgement(
    kind: int, value: dict[str, Any], feedback: preference_v1.Feedback | preference_v1.KnownAnswer
) -> None:
    """Writes the canonical form `value` of a judgement into a message."""
    if kind == preference_v1.TASK_KIND_COMPARISON:
        comparison = feedback.comparison
        comparison.chosen_id, comparison.rejected_id = value["chosen_id"], value["rejected_id"]
        comparison.tie = value["tie"]
        if value["margin"] is not None:
            comparison.margin = value["margin"]
    elif kind == preference_v1.TASK_KIND_RANKING:
        for names in value["ranks"]:
            feedback.ranking.ranks.add(completion_ids=names)
    else:
        feedback.rating.CopyFrom(preference_v1.Rating(**value))


def _comparison(message: preference_v1.Comparison, path: str, resolve: Callable[[str, str], str]) -> Judgement:
    fields: dict[str, str] = {}
    chosen = _add(fields, f"{path}chosen_id", message.chosen_id, resolve)
    rejected = _add(fields, f"{path}rejected_id", message.rejected_id, resolve)
    margin = None
    if message.HasField("margin"):
        margin = _finite(f"{path}margin", message.margin)
        if margin < 0:
            raise InvalidArgument.at(f"{path}margin", f"is {margin:g}; must be at least 0, or unset if not known")
        if message.tie and margin > 0:
            raise InvalidArgument.at(f"{path}margin", "a tie has no margin")
    if message.tie and rejected < chosen:
        chosen, rejected = rejected, chosen
        fields = dict(reversed(fields.items()))
    value = {"chosen_id": chosen, "rejected_id": rejected, "tie": message.tie, "margin": margin}
    return Judgement(preference_v1.TASK_KIND_COMPARISON, value, fields)


def _ranking(message: preference_v1.Ranking, path: str, resolve: Callable[[str, str], str]) -> Judgement:
    fields: dict[str, str] = {}
    ranks = []
    for number, rank in enumerate(message.ranks):
        if not rank.completion_ids:
            raise InvalidArgument.at(f"{path}ranks[{number}].completion_ids", "must have at least one completion")
        ranks.append(
            sorted(
                _add(fields, f"{path}ranks[{number}].completion_ids[{place}]", name, resolve)
                for place, name in enumerate(rank.completion_ids)
            )
        )
    if len(fields) < 2:
        raise InvalidArgument.at(f"{path}ranks", "must rank at least two completions")
    ordered = {name: fields[name] for rank in ranks for name in rank}
    return Judgement(preference_v1.TASK_KIND_RANKING, {"ranks": ranks}, ordered)


def _rating(message: preference_v1.Rating, path: str, resolve: Callable[[str, str], str]) -> Judgement:
    fields: dict[str, str] = {}
    completion = _add(fields, f"{path}completion_id", message.completion_id, resolve)
    if not message.HasField("value"):
        raise InvalidArgument.at(f"{path}value", "must be set")
    low = _finite(f"{path}min", message.min) if message.HasField("min") else 0.0
    high = _finite(f"{path}max", message.max) if message.HasField("max") else 1.0
    if low >= high:
        raise InvalidArgument.at(f"{path}max", f"is {high:g}; must be above min, which is {low:g}")
    number = _finite(f"{path}value", message.value)
    if not low <= number <= high:
        raise InvalidArgument.at(f"{path}value", f"is {number:g}; the scale is {low:g} to {high:g}")
    value = {"completion_id": completion, "value": number, "min": low, "max": high, "criterion": message.criterion}
    return Judgement(preference_v1.TASK_KIND_RATING, value, fields)


def _add(fields: dict[str, str], field: str, name: str, resolve: Callable[[str, str], str]) -> str:
    if not name:
        raise InvalidArgument.at(field, "must be set")
    completion = resolve(field, name)
    if completion in fields:
        raise InvalidArgument.at(
            field, f"is the same completion as {fields[completion]}; a completion cannot be compared with itself"
        )
    fields[completion] = field
    return completion


def _finite(field: str, number: float) -> float:
    if not math.isfinite(number):
        raise InvalidArgument.at(field, f"is {number}; must be a finite number")
    return number + 0.0  # -0.0 becomes 0.0, so that equal numbers have equal digests
