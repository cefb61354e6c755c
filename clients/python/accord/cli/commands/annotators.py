"""`accord annotators`: lists, excludes, reinstates and withdraws annotators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accord.cli.options import AnnotatorKind, Format, options, run_async

app = typer.Typer(help="List annotators; exclude, reinstate or withdraw their feedback.", no_args_is_help=True)

Who = Annotated[str, typer.Argument(metavar="ANNOTATOR", help="The annotator's id, as in `accord annotators list`.")]
Kind = Annotated[
    AnnotatorKind, typer.Option("--kind", "-k", help="The kind of annotator; the same id may exist for several kinds.")
]
Printed = Annotated[Format, typer.Option("--format", "-f", help="Output format.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; recorded with the annotator.")]


@app.command("list")
def list_annotators(context: typer.Context, format: Printed = Format.table) -> None:
    """List annotators with the number of their judgements that count."""
    run_async(_list(options(context).state_dir, format))


@app.command("exclude")
def exclude(context: typer.Context, annotator: Who, kind: Kind = AnnotatorKind.human, reason: Reason = "") -> None:
    """Stop giving an annotator tasks, and leave their feedback out of new snapshots. `reinstate` undoes this."""
    run_async(_change(options(context).state_dir, "exclude", annotator, kind, reason))


@app.command("reinstate")
def reinstate(context: typer.Context, annotator: Who, kind: Kind = AnnotatorKind.human) -> None:
    """Let the feedback of an excluded annotator count again."""
    run_async(_change(options(context).state_dir, "reinstate", annotator, kind, ""))


@app.command("withdraw")
def withdraw(
    context: typer.Context,
    annotator: Who,
    kind: Kind = AnnotatorKind.human,
    reason: Reason = "",
    format: Printed = Format.table,
) -> None:
    """Leave an annotator's feedback out of new snapshots permanently, and list the models that learned from it."""
    run_async(_withdraw(options(context).state_dir, annotator, kind, reason, format))


async def _list(state_dir: Path, format: Format) -> None:
    from accord.cli.local.session import service_client
    from accord.cli.render.output import clean, out, print_json
    from accord.cli.render.people import profile_shape

    async with service_client(state_dir, "preference") as client:
        rows = [profile_shape(profile) async for profile in client.annotators.list()]
    if format is Format.json:
        print_json(rows)
        return
    if not rows:
        out().print("No judgements yet.")
        return
    from rich.table import Table

    table = Table("annotator", "kind", "state", "reason")
    table.add_column("feedback", justify="right")
    for row in rows:
        name = f"{row['annotator_id']} ({row['display_name']})" if row["display_name"] else row["annotator_id"]
        table.add_row(clean(name), row["kind"], row["state"], clean(row["reason"]), str(row["feedback"]))
    out().print(table)


async def _change(state_dir: Path, how: str, name: str, kind: AnnotatorKind, reason: str) -> None:
    from accord.cli.local.session import service_client
    from accord.cli.render.output import note
    from accord.cli.render.people import annotator_of

    who = annotator_of(name, kind)
    async with service_client(state_dir, "preference") as client:
        if how == "exclude":
            profile = await client.annotators.exclude(who, reason=reason)
        else:
            profile = await client.annotators.reinstate(who)
    effect = "are left out of new snapshots" if how == "exclude" else "count again"
    note(f"{name}: {profile.feedback} judgements {effect}")


async def _withdraw(state_dir: Path, name: str, kind: AnnotatorKind, reason: str, format: Format) -> None:
    from accord.cli.local.session import open_session
    from accord.cli.render.lineage import learned_from, trained_shape, trained_table, use_shape
    from accord.cli.render.output import note, out, print_json
    from accord.cli.render.people import annotator_of, profile_shape

    async with open_session(state_dir) as session:
        client = await session.services("preference")
        gone = await client.annotators.withdraw(annotator_of(name, kind), reason=reason)
        models = await learned_from(client, gone.snapshots)
    if format is Format.json:
        print_json(
            {
                "annotator": profile_shape(gone.profile),
                "snapshots": [use_shape(use) for use in gone.snapshots],
                "retrain": [trained_shape(model) for model in models],
            }
        )
        return
    kept = len(gone.snapshots)
    note(
        f"{name} was withdrawn: {gone.profile.feedback} judgements are left out of new snapshots; "
        f"{kept} existing snapshots contain them"
    )
    if models:
        out().print(
            "These models learned from the feedback, directly or through the policy they started from. Retrain them:"
        )
        out().print(trained_table(models))
    else:
        out().print("No model learned from the feedback.")
