"""What can come of a check."""

from __future__ import annotations

from enum import StrEnum


class Unmet(Exception):
    """The engine does not do what the contract demands; the message says what it did."""


class NotApplicable(Exception):
    """The check does not apply to this engine, or needs something that was not given; the message says what."""


class Verdict(StrEnum):
    """Only `unmet` fails the suite."""

    met = "met"
    unmet = "unmet"
    skipped = "skipped"


def demand(condition: object, otherwise: str) -> None:
    """Raises Unmet unless the condition holds."""
    if not condition:
        raise Unmet(otherwise)
