"""What a check is, and its outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from accord.conformance.target import Target
from accord.conformance.verdict import Verdict


@dataclass(frozen=True)
class Check:
    """One demand of the contract. `run` returns if it is met, else raises Unmet or NotApplicable.

    `acceptance`: a replica must pass it before it serves a run. Not among these is what keeps the engine busy for
    minutes (overload, deadlines), what needs a second model, and what the steps of a run show anyway.
    """

    name: str
    demands: str
    fix: str
    run: Callable[[Target], Awaitable[None]]
    acceptance: bool


@dataclass(frozen=True)
class Outcome:
    """The outcome of a check; `detail` is empty if it was met."""

    check: Check
    verdict: Verdict
    detail: str
    seconds: float


CHECKS: list[Check] = []


def check(
    *, demands: str, fix: str, acceptance: bool = False
) -> Callable[[Callable[[Target], Awaitable[None]]], Check]:
    """Makes a function the check of its name, with dashes for underscores, and adds it to CHECKS."""

    def add(run: Callable[[Target], Awaitable[None]]) -> Check:
        made = Check(run.__name__.replace("_", "-"), demands, fix, run, acceptance)
        CHECKS.append(made)
        return made

    return add
