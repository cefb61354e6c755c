"""`accord annotators`: who judges; excluding, reinstating and withdrawing them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accord.cli.options import AnnotatorKind, Format, options, run_async

if TYPE_CHECKING:
    pass

app = typer.Typer(help="Who judges, and whose feedback counts.", no_args_is_help=True)

Who = Annotated[str, typer.Argument(metavar="ANNOTATOR", help="Their id, as `accord annotators list` shows it.")]
Kind = Annotated[AnnotatorKind, typer.Option("--kind", "-k", help="What they are: one id may stand for two kinds.")]
Printed = Annotated[Format, typer.Option("--format", "-f", help="How to print it.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; kept with the annotator.")]


@app.command("list")
def list_annotators(context: typer.Context, format: Printed = Format.table) -> None:
    """Show every annotator with how many judgements of theirs are in force."""
    run_async(_list(options(context).state_dir, format))


@app.command("exclude")
def exclude(context: typer.Context, annotator: Who, kind: Kind = AnnotatorKind.human, reason: Reason = "") -> None:
    """Give them no more tasks and leave their feedback out of new snapshots. `reinstate` undoes it."""
    run_async(_change(options(context).state_dir, "exclude", annotator, kind, reason))


@app.command("reinstate")
def reinstate(context: typer.Context, annotator: Who, kind: Kind = AnnotatorKind.human) -> None:
    """Count an excluded annotator again."""
    run_async(_change(options(context).state_dir, "reinstate", annotator, kind, ""))


@app.command("withdraw")
def withdraw(
    context: typer.Context,
    annotator: Who,
    kind: Kind = AnnotatorKind.human,
    reason: Reason = "",
    format: Printed = Format.table,
) -> None:
    """Take an annotator's feedback out of everything new, for good, and list the models that learnt from it."""
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
        out().print("Nobody has judged anything yet.")
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
    note(f"{name}: {profile.feedback} judgements {'count again' if how == 'reinstate' else 'are in no new snapshot'}")


async def _withdraw(state_dir: Path, name: str, kind: AnnotatorKind, reason: str, format: Format) -> None:
    from accord.cli.local.session import open_session
    from accord.cli.render.lineage import learnt, trained_shape, trained_table, use_shape
    from accord.cli.render.output import note, out, print_json
    from accord.cli.render.people import annotator_of, profile_shape

    async with open_session(state_dir) as session:
        client = await session.services("preference")
        gone = await client.annotators.withdraw(annotator_of(name, kind), reason=reason)
        models = await learnt(client, gone.snapshots)
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
    note(f"{name} has withdrawn: {gone.profile.feedback} judgements are in no new snapshot; {kept} old ones hold them")
    if models:
        out().print("Learnt from their feedback, themselves or through the policy that they started from; retrain:")
        out().print(trained_table(models))
    else:
        out().print("No model has learnt from their feedback.")
