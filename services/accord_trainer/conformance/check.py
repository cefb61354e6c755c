"""A check and its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from accord.conformance.verdict import Verdict
from accord_trainer.conformance.bench import Bench


@dataclass(frozen=True)
class Check:
    """One requirement. `run` returns if the algorithm meets it; otherwise it raises Unmet or NotApplicable."""

    name: str
    demands: str
    fix: str
    run: Callable[[Bench], None]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a check; `detail` is empty if the requirement is met."""

    check: Check
    verdict: Verdict
    detail: str
    seconds: float


CHECKS: list[Check] = []


def check(*, demands: str, fix: str) -> Callable[[Callable[[Bench], None]], Check]:
    """Registers a function in CHECKS as the check of its name, with dashes for underscores."""

    def add(run: Callable[[Bench], None]) -> Check:
        made = Check(run.__name__.replace("_", "-"), demands, fix, run)
        CHECKS.append(made)
        return made

    return add
