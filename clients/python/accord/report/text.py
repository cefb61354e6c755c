"""Figures formatted for people, in one place, so that every form of the report formats them alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from accord.report.model import EngineUse

NOT_MEASURED = "–"
STAGE_ORDER = ("prepare", "collect", "reward_model", "policy", "evaluate")


def number(value: float | None, digits: int = 3) -> str:
    """A fixed number of digits after the point; a dash if nothing was measured."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a zero


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign."""
    return NOT_MEASURED if value is None or not math.isfinite(value) else f"{value:+.{digits}f}"


def percent(value: float | None) -> str:
    """A share from 0 to 1 as a percentage."""
    return NOT_MEASURED if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def duration(seconds: float | None) -> str:
    """`850 ms`, `42 s`, `3 min 07 s`, `2 h 05 min`."""
    if seconds is None or not math.isfinite(seconds):
        return NOT_MEASURED
    if seconds < 1:
        return f"{1000 * max(0.0, seconds):.0f} ms"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def clock(seconds: float | None) -> str:
    """`0:42`, `8:02`, `2:05:00`: narrow, for columns."""
    if seconds is None or not math.isfinite(seconds):
        return NOT_MEASURED
    whole = max(0, round(seconds))
    minutes = f"{whole % 3600 // 60:02d}" if whole >= 3600 else f"{whole // 60}"
    return f"{f'{whole // 3600}:' if whole >= 3600 else ''}{minutes}:{whole % 60:02d}"


def generated_by(engines: Sequence[EngineUse]) -> str:
    """`transformers; from iteration 1, policy, step 12: vllm; sglang refused (NOT_CONFORMING)`."""
    return "; ".join(_engine_use(use, first=not index) for index, use in enumerate(engines))


def _engine_use(use: EngineUse, *, first: bool) -> str:
    where = f"iteration {use.iteration}" if use.iteration is not None else ""
    where += f", {use.stage.replace('_', ' ')}" if where and use.stage else ""
    where += f", step {use.step}" if where and use.step else ""
    if first:
        return use.engine
    if use.taken:
        return f"{f'from {where}' if where else 'after a swap'}: {use.engine}"
    if use.reason:
        return f"{use.engine} refused ({use.reason}){f' in {where}' if where else ''}"
    return f"{use.engine} pending"


def stage_order(name: str) -> tuple[int, str]:
    """Sort key: stages in the order of an iteration, unknown ones last."""
    return (STAGE_ORDER.index(name) if name in STAGE_ORDER else len(STAGE_ORDER), name)
