"""The possible outcomes of a check."""

from __future__ import annotations

from enum import StrEnum


class Unmet(Exception):
    """The engine does not meet the contract; the message describes what it did."""


class NotApplicable(Exception):
    """The check does not apply to this engine, or needs an option that was not given; the message explains which."""


class Verdict(StrEnum):
    """Only `unmet` fails the suite."""

    met = "met"
    unmet = "unmet"
    skipped = "skipped"


def demand(condition: object, otherwise: str) -> None:
    """Raises Unmet unless the condition holds."""
    if not condition:
        raise Unmet(otherwise)
