"""A check and its outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from accord.conformance.target import Target
from accord.conformance.verdict import Verdict


@dataclass(frozen=True)
class Check:
    """One requirement of the contract. `run` returns if it is met; otherwise it raises Unmet or NotApplicable.

    `acceptance`: a replica must pass it before it serves a run. Acceptance excludes the checks that keep the
    engine busy for minutes (overload, deadlines), need a second model, or repeat what the steps of a run show.
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
    """Registers a function in CHECKS as the check of its name, with dashes for underscores."""

    def add(run: Callable[[Target], Awaitable[None]]) -> Check:
        made = Check(run.__name__.replace("_", "-"), demands, fix, run, acceptance)
        CHECKS.append(made)
        return made

    return add
