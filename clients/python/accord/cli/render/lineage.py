"""Lineage as JSON for programs and as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from accord.client import Client
from accord.controller import v1 as controller_v1
from accord.names import enum_name
from accord.preference import v1 as preference_v1

if TYPE_CHECKING:
    from rich.table import Table


async def learned_from(
    client: Client, uses: Sequence[preference_v1.SnapshotUse]
) -> Sequence[controller_v1.TrainedModel]:
    """The models that learned from snapshots."""
    digests = [use.snapshot.digest for use in uses]
    return await client.models.trained_on(digests) if digests else ()


def step_shape(step: controller_v1.LineageStep) -> dict[str, Any]:
    """`run_id, iteration, model, promoted, policy, started_from, started_from_model, reward_model, also_learnt_from,
    prompt_snapshot, preference_snapshot`; weights by digest, null if there are none."""
    return {
        "run_id": step.run_id,
        "iteration": step.iteration,
        "model": step.model or None,
        "promoted": step.promoted,
        "policy": step.policy.digest or None,
        "started_from": step.started_from.digest or None,
        "started_from_model": step.started_from_model or None,
        "reward_model": step.reward_model.digest or None,
        "also_learnt_from": [ref.digest for ref in step.also_learnt_from],
        "prompt_snapshot": step.prompt_snapshot or None,
        "preference_snapshot": step.preference_snapshot or None,
    }


def trained_shape(model: controller_v1.TrainedModel) -> dict[str, Any]:
    """A step, the snapshots that it learned from directly, and the ancestors through which it learned from them."""
    return {**step_shape(model.step), "snapshots": list(model.snapshots), "through": list(model.through)}


def use_shape(use: preference_v1.SnapshotUse) -> dict[str, Any]:
    """`digest, kind, records, create_time`."""
    snapshot = use.snapshot
    return {
        "digest": snapshot.digest,
        "kind": enum_name(preference_v1.SnapshotKind, snapshot.kind),
        "records": use.records,
        "create_time": snapshot.create_time.ToJsonString(),
    }


def origins_shape(origins: preference_v1.GetSnapshotOriginsResponse) -> dict[str, Any]:
    """`digest, prompts, annotators[], sources[], answers[]` of a snapshot."""
    return {
        "digest": origins.snapshot.digest,
        "prompts": origins.prompts,
        "annotators": [
            {
                "annotator_id": one.annotator.annotator_id,
                "kind": enum_name(preference_v1.AnnotatorKind, one.annotator.kind),
                "records": one.records,
            }
            for one in origins.annotators
        ],
        "sources": [{"source": one.source, "records": one.records} for one in origins.sources],
        "answers": [
            {
                "run_id": one.origin.run_id or None,
                "iteration": one.origin.iteration,
                "weights_digest": one.origin.weights_digest or None,
                "engine": one.origin.engine or None,
                "answers": one.completions,
            }
            for one in origins.completions
        ],
    }


def steps_table(steps: Sequence[dict[str, Any]]) -> Table:
    """Steps, the newest first."""
    from rich.table import Table

    table = Table("iteration", "model", "policy", "started from", "reward model", "prompts", "preferences")
    for step in steps:
        table.add_row(
            f"{step['run_id']}/{step['iteration']}",
            step["model"] or "(not promoted)",
            short(step["policy"]),
            step["started_from_model"] or short(step["started_from"]),
            short(step["reward_model"]),
            short(step["prompt_snapshot"]),
            short(step["preference_snapshot"]),
        )
    return table


def trained_table(models: Sequence[controller_v1.TrainedModel]) -> Table:
    """The models that learned from something."""
    from rich.table import Table

    table = Table("iteration", "model", "policy", "reward model", "learned from")
    for model in models:
        step = step_shape(model.step)
        direct = ", ".join(short(digest) for digest in model.snapshots)
        table.add_row(
            f"{step['run_id']}/{step['iteration']}",
            step["model"] or "(not promoted)",
            short(step["policy"]),
            short(step["reward_model"]),
            direct or f"descends from {', '.join(_named(step, digest) for digest in model.through)}",
        )
    return table


def _named(step: dict[str, Any], digest: str) -> str:
    """The initial weights of a step: their name if known, otherwise their digest."""
    return str(step["started_from_model"] if digest == step["started_from"] else "") or short(digest)


def people_table(origins: dict[str, Any]) -> Table:
    """The annotators of a snapshot's records."""
    from rich.table import Table

    from accord.cli.render.output import clean

    table = Table(f"annotators of {short(origins['digest'])}", "kind")
    table.add_column("records", justify="right")
    for one in origins["annotators"]:
        table.add_row(clean(one["annotator_id"]), one["kind"], str(one["records"]))
    return table


def answers_table(origins: dict[str, Any]) -> Table:
    """Which weights and engines generated a snapshot's answers."""
    from rich.table import Table

    table = Table("generated by", "weights", "engine")
    table.add_column("answers", justify="right")
    for one in origins["answers"]:
        by = f"{one['run_id']}/{one['iteration']}" if one["run_id"] else "(imported)"
        table.add_row(by, short(one["weights_digest"]), one["engine"] or "-", str(one["answers"]))
    return table


def short(digest: str | None) -> str:
    """The beginning of a digest."""
    return digest[:12] if digest else "-"
