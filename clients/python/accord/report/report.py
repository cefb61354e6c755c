"""Builds the report of a run from the Run resource and its events."""

from __future__ import annotations

from collections.abc import Iterable

from accord.controller import v1 as controller_v1
from accord.names import stage_name, state_name
from accord.report.engines import engine_uses
from accord.report.model import Answer, Iteration, Report, Step, Used


def build_report(run: controller_v1.Run, events: Iterable[controller_v1.RunEvent] = ()) -> Report:
    """The report of a run in any state: finished iterations from its status, curves from its `step` events.

    If a step was repeated after a crash, its last event counts.
    """
    status, events = run.status, list(events)
    spec = status.resolved_spec if status.HasField("resolved_spec") else run.spec
    return Report(
        run_id=run.run_id,
        state=state_name(status.state),
        message=status.message,
        model=spec.model or run.spec.model,
        simulated_feedback=status.simulated_feedback or run.spec.feedback.HasField("simulated"),
        feedback=run.spec.feedback.WhichOneof("source") or "",
        created=run.create_time.ToJsonString() if run.HasField("create_time") else "",
        algorithm=spec.policy.algorithm or "ppo",
        planned_iterations=max(1, spec.iterations),
        iterations=tuple(_iteration(row) for row in status.iterations),
        steps=_steps(events),
        promoted_uri=status.promoted.uri,
        promoted_digest=status.promoted.digest,
        engines=engine_uses(run, events),
    )


def _iteration(row: controller_v1.IterationResult) -> Iteration:
    return Iteration(
        number=row.iteration,
        heldout_score=row.heldout_score if row.HasField("heldout_score") else None,
        kl_nats=row.kl_nats if row.HasField("kl_nats") else None,
        rm_accuracy=row.rm_accuracy if row.HasField("rm_accuracy") else None,
        promoted=row.promoted,
        seconds=row.seconds,
        stage_seconds=dict(row.stage_seconds),
        stage_used={name: _used(usage) for name, usage in row.stage_usage.items()},
        response_tokens=row.response_tokens if row.HasField("response_tokens") else None,
        gate_reason=row.gate_reason,
        policy_uri=row.policy.uri,
        policy_digest=row.policy.digest,
        reward_model_digest=row.reward_model.digest,
        prompt_snapshot=row.prompt_snapshot,
        preference_snapshot=row.preference_snapshot,
        answers=tuple(
            Answer(
                item.prompt_id, item.prompt, item.response, item.score if item.HasField("score") else None, item.engine
            )
            for item in row.samples
        ),
    )


def _used(usage: controller_v1.StageUsage) -> Used:
    return Used(
        dict(usage.cpu_seconds), usage.gpu_seconds if usage.HasField("gpu_seconds") else None, tuple(usage.unknown)
    )


def _steps(events: Iterable[controller_v1.RunEvent]) -> tuple[Step, ...]:
    latest: dict[tuple[int, int, int], Step] = {}
    for event in events:
        if event.kind == "step" and event.metrics:
            key = (event.iteration, int(event.stage), event.step)
            latest[key] = Step(event.iteration, stage_name(event.stage), event.step, dict(event.metrics))
    return tuple(latest[key] for key in sorted(latest))
