"""Curves over the steps of a stage, one iteration after another."""

from __future__ import annotations

import math

from accord.report.model import Report

# Labels of curves, each with the metrics that may hold its values; the first one present is used.
REWARD_CURVES = (("reward", ("reward",)), ("score", ("score", "score_mean")))
KL_CURVES = (("samples of the step", ("kl_k1", "kl", "kl_nats")),)
LENGTH_CURVES = (("tokens", ("response_tokens", "response_length", "length")),)
STALENESS_CURVES = (("mean", ("staleness",)), ("most", ("staleness_max",)))
MISMATCH_CURVES = (("nats per token", ("mismatch_kl",)),)
REWARD_MODEL_CURVES = (("loss", ("loss",)), ("accuracy", ("accuracy",)))


def curve(report: Report, stage: str, names: tuple[str, ...]) -> list[tuple[int, float]]:
    """`(position, value)` of a metric over the stage's steps, finite values only. Positions count from 1 over all
    iterations."""
    points = []
    for position, metrics in _positions(report, stage):
        value = next((metrics[name] for name in names if name in metrics), None)
        if value is not None and math.isfinite(value):
            points.append((position, value))
    return points


def iteration_starts(report: Report, stage: str) -> dict[int, int]:
    """The position of each iteration's first step of a stage."""
    starts: dict[int, int] = {}
    for position, step in enumerate((s for s in report.steps if s.stage == stage), start=1):
        starts.setdefault(step.iteration, position)
    return starts


def iteration_ends(report: Report, stage: str) -> dict[int, int]:
    """The position of each iteration's last step of a stage."""
    return {
        step.iteration: position for position, step in enumerate((s for s in report.steps if s.stage == stage), start=1)
    }


def _positions(report: Report, stage: str) -> list[tuple[int, dict[str, float]]]:
    steps = [step for step in report.steps if step.stage == stage]
    return [(position, step.metrics) for position, step in enumerate(steps, start=1)]
