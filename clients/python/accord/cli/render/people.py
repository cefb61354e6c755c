"""Annotators and the quality of their feedback, as JSON and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from accord.cli.options import AnnotatorKind
from accord.names import enum_name
from accord.preference import v1 as preference_v1

if TYPE_CHECKING:
    from rich.table import Table


def annotator_of(name: str, kind: AnnotatorKind) -> preference_v1.Annotator:
    """An annotator by id and kind."""
    return preference_v1.Annotator(
        annotator_id=name, kind=preference_v1.AnnotatorKind.Value(f"ANNOTATOR_KIND_{kind.value.upper()}")
    )


def profile_shape(profile: preference_v1.AnnotatorProfile) -> dict[str, Any]:
    """`annotator_id, kind, display_name, state, reason, feedback, create_time`."""
    return {
        "annotator_id": profile.annotator.annotator_id,
        "kind": enum_name(preference_v1.AnnotatorKind, profile.annotator.kind),
        "display_name": profile.display_name,
        "state": enum_name(preference_v1.AnnotatorState, profile.state),
        "reason": profile.reason,
        "feedback": profile.feedback,
        "create_time": profile.create_time.ToJsonString(),
    }


def quality_shape(kinds: Sequence[preference_v1.KindQuality]) -> list[dict[str, Any]]:
    """One object per kind of annotator: the fields of KindQuality by name, null for an unknown number."""
    return [
        {
            "kind": enum_name(preference_v1.AnnotatorKind, kind.kind),
            **_numbers(kind),
            "annotators": [
                {
                    "annotator_id": one.annotator.annotator_id,
                    "state": enum_name(preference_v1.AnnotatorState, one.state),
                    **_numbers(one),
                }
                for one in kind.annotators
            ],
            "windows": [
                {"start_time": window.start_time.ToJsonString(), **_numbers(window)} for window in kind.windows
            ],
        }
        for kind in kinds
    ]


def quality_tables(kind: dict[str, Any]) -> list[Table]:
    """The tables of one kind: totals, annotators, windows."""
    from rich.table import Table

    from accord.cli.render.output import clean

    totals = Table(f"{kind['kind']} annotators", show_header=True)
    totals.add_column(justify="right")
    for name in ("judgements", "shared_pairs", "alpha", "rating_alpha", "median_seconds"):
        totals.add_row(name.replace("_", " "), _shown(kind[name]))
    people = Table("annotator")
    shown = {
        "judgements": "judged",
        "consensus_agreement": "agrees",
        "gold_accuracy": "gold",
        "reliability": "reliable",
        "drift": "drift",
        "median_seconds": "seconds",
        "hasty_answers": "hasty",
        "skipped": "skipped",
        "flagged": "flagged",
        "late": "late",
        "corrected": "corrected",
    }
    for title in shown.values():
        people.add_column(title, justify="right")
    people.add_column("")
    for one in kind["annotators"]:
        notes = [one["state"]] if one["state"] != "active" else []
        notes += ["too fast"] if one["speed_outlier"] else []
        people.add_row(clean(one["annotator_id"]), *(_shown(one[name]) for name in shown), ", ".join(notes))
    windows = Table("from")
    for title in ("judged", "annotators", "alpha", "ties", "longer chosen", "seconds"):
        windows.add_column(title, justify="right")
    for window in kind["windows"]:
        values = ("judgements", "annotators", "alpha", "tie_rate", "longer_rate", "median_seconds")
        windows.add_row(window["start_time"][:16].replace("T", " "), *(_shown(window[name]) for name in values))
    return [totals, people, windows]


def _numbers(message: Message) -> dict[str, Any]:
    """The plain fields of a message; None for an optional one that is unset."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated or field.message_type is not None or field.enum_type is not None:
            continue
        known = not field.has_presence or message.HasField(field.name)
        found[field.name] = getattr(message, field.name) if known else None
    return found


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
