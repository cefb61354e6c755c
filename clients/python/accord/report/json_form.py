"""The report as JSON."""

from __future__ import annotations

import math
from typing import Any

from accord.report.model import Iteration, Report


def report_json(report: Report) -> dict[str, Any]:
    """The same figures as the HTML report, ready for `json.dumps`: unmeasured figures are null, never NaN.

    Each of `iterations[]` has `iteration, heldout_score, kl_nats, rm_accuracy, promoted, seconds` and more; the base
    model is iteration 0. `stage_usage`, by stage: `cpu_seconds` of all services, `gpu_seconds` for which GPUs
    were held.
    `engines[]`, the engines of the samples, and from when: `engine, taken, refused_for, iteration, stage, step`.
    Each of `steps[]` has `iteration, stage, step, metrics`.
    """
    return {
        "run_id": report.run_id,
        "state": report.state,
        "message": report.message,
        "model": report.model,
        "algorithm": report.algorithm,
        "feedback": report.feedback,
        "simulated_feedback": report.simulated_feedback,
        "create_time": report.created,
        "planned_iterations": report.planned_iterations,
        "seconds": report.seconds,
        "promoted": {"uri": report.promoted_uri, "digest": report.promoted_digest} if report.promoted_digest else None,
        "engines": [
            {
                "engine": use.engine,
                "taken": use.taken,
                "refused_for": use.reason or None,
                "iteration": use.iteration,
                "stage": use.stage or None,
                "step": use.step,
            }
            for use in report.engines
        ],
        "iterations": [_iteration(row) for row in report.iterations],
        "steps": [
            {
                "iteration": step.iteration,
                "stage": step.stage,
                "step": step.number,
                "metrics": {name: _finite(value) for name, value in sorted(step.metrics.items())},
            }
            for step in report.steps
        ],
    }


def _iteration(row: Iteration) -> dict[str, Any]:
    return {
        "iteration": row.number,
        "heldout_score": _finite(row.heldout_score),
        "kl_nats": _finite(row.kl_nats),
        "rm_accuracy": _finite(row.rm_accuracy),
        "promoted": row.promoted,
        "seconds": row.seconds,
        "stage_seconds": row.stage_seconds,
        "cpu_seconds": row.cpu_seconds,
        "gpu_seconds": row.gpu_seconds,
        "stage_usage": {
            name: {
                "cpu_seconds": used.cpu_seconds,
                "gpu_seconds": used.gpu_seconds,
                "cpu_seconds_by_service": used.cpu_by_service,
                "unknown_services": list(used.unknown),
            }
            for name, used in row.stage_used.items()
        },
        "response_tokens": _finite(row.response_tokens),
        "gate_reason": row.gate_reason,
        "policy": {"uri": row.policy_uri, "digest": row.policy_digest} if row.policy_digest else None,
        "reward_model_digest": row.reward_model_digest or None,
        "prompt_snapshot": row.prompt_snapshot or None,
        "preference_snapshot": row.preference_snapshot or None,
        "samples": [
            {
                "prompt_id": a.prompt_id,
                "prompt": a.prompt,
                "response": a.response,
                "score": _finite(a.score),
                "engine": a.engine or None,
            }
            for a in row.answers
        ],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
