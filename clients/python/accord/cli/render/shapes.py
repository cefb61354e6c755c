"""Runs and models as JSON."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict

from accord.controller import v1 as controller_v1
from accord.names import stage_name, state_name


def run_summary(run: controller_v1.Run) -> dict[str, Any]:
    """A row of `runs list`: `run_id, state, iteration, iterations, stage, step, total_steps, message, ...`."""
    status = run.status
    spec = status.resolved_spec if status.HasField("resolved_spec") else run.spec
    scores = [row.heldout_score for row in status.iterations if row.HasField("heldout_score")]
    return {
        "run_id": run.run_id,
        "state": state_name(status.state),
        "iteration": status.iteration,
        "iterations": max(1, spec.iterations),
        "stage": stage_name(status.stage) or None,
        "step": status.step,
        "total_steps": status.total_steps,
        "message": status.message,
        "heldout_scores": scores,
        "simulated_feedback": status.simulated_feedback,
        "create_time": run.create_time.ToJsonString() if run.HasField("create_time") else None,
    }


def run_full(run: controller_v1.Run) -> dict[str, Any]:
    """The summary and, under `resource`, the whole resource in the JSON form of the contract."""
    return {**run_summary(run), "resource": MessageToDict(run, preserving_proto_field_name=True)}


def event_shape(event: controller_v1.RunEvent) -> dict[str, Any]:
    """An event: `run_id, sequence, time, iteration, stage, step, total_steps, kind, message, metrics`."""
    return {
        "run_id": event.run_id,
        "sequence": event.sequence,
        "time": event.time.ToJsonString(),
        "iteration": event.iteration,
        "stage": stage_name(event.stage) or None,
        "step": event.step,
        "total_steps": event.total_steps,
        "kind": event.kind,
        "message": event.message,
        "metrics": dict(sorted(event.metrics.items())),
    }


def model_shape(model: controller_v1.Model) -> dict[str, Any]:
    """A row of `models list`: `name, run_id, iteration, current, heldout_score, uri, digest, version, create_time`."""
    return {
        "name": model.name,
        "run_id": model.run_id,
        "iteration": model.iteration,
        "current": model.current,
        "heldout_score": model.heldout_score if model.HasField("heldout_score") else None,
        "uri": model.weights.uri,
        "digest": model.weights.digest,
        "version": model.weights.version,
        "create_time": model.create_time.ToJsonString() if model.HasField("create_time") else None,
    }
