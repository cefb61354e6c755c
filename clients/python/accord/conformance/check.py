"""What a check is, and what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accord.conformance.target import Target


class Unmet(Exception):
    """The engine does not do what the contract demands; the message says what it did."""


class NotApplicable(Exception):
    """It cannot be told of this engine, or not with what was given; the message says why."""


class Verdict(StrEnum):
    """`unmet` is the only one that fails the suite."""

    met = "met"
    unmet = "unmet"
    skipped = "skipped"


@dataclass(frozen=True)
class Check:
    """One demand of the contract. `run` returns where it is met, else raises Unmet or NotApplicable.

    `when`: "swap" where an engine must also meet it before an active run is shifted to it."""

    name: str
    demands: str
    fix: str
    run: Callable[[Target], Awaitable[None]]
    when: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of a check: `detail` is empty where it was met."""

    check: Check
    verdict: Verdict
    detail: str
    seconds: float


CHECKS: list[Check] = []


def check(*, demands: str, fix: str, when: str = "") -> Callable[[Callable[[Target], Awaitable[None]]], Check]:
    """Makes a function the check of its name, dashes for underscores, and adds it to CHECKS."""

    def add(run: Callable[[Target], Awaitable[None]]) -> Check:
        made = Check(run.__name__.replace("_", "-"), demands, fix, run, when)
        CHECKS.append(made)
        return made

    return add


def demand(condition: object, otherwise: str) -> None:
    """Unmet, unless the condition holds."""
    if not condition:
        raise Unmet(otherwise)
