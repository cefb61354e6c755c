"""`accord models`: the policies that runs have promoted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from accord.cli.options import Format, options, run_async

app = typer.Typer(help="Promoted policies and the base models they came from.", no_args_is_help=True)


@app.command("list")
def list_models(
    context: typer.Context,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to print it.")] = Format.table,
) -> None:
    """Show all models, newest first. Works when nothing is running."""
    run_async(_list(options(context).state_dir, format))


async def _list(state_dir: Path, format: Format) -> None:
    from accord.cli.local.session import open_session
    from accord.cli.render.output import out, print_json
    from accord.cli.render.shapes import model_shape
    from accord.report.text import number

    async with open_session(state_dir) as session:
        rows = [model_shape(model) async for model in session.client.models.list()]
    if format is Format.json:
        print_json(rows)
        return
    if not rows:
        out().print("No models yet. A run promotes them: accord run FILE")
        return
    from rich.table import Table

    table = Table("model", "in force", "held-out score", "run", "digest", "created")
    for row in rows:
        created = (row["create_time"] or "")[:16].replace("T", " ")
        in_force = "yes" if row["current"] else ""
        table.add_row(row["name"], in_force, number(row["heldout_score"]), row["run_id"], row["digest"][:12], created)
    out().print(table)


ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]


@app.command("promote")
def promote(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model of `accord models list`.")],
    reason: ReasonOption = "",
) -> None:
    """Put a model in force for its run. A run at work is not disturbed."""
    run_async(_put_in_force(options(context).state_dir, name, reason, back=False))


@app.command("rollback")
def rollback(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run; unset: that of the newest model.")] = "",
    reason: ReasonOption = "",
) -> None:
    """Put in force what was before a run's policy in force; again: one further back."""
    run_async(_put_in_force(options(context).state_dir, run, reason, back=True))


def _login() -> str:
    """Who types; a user without a name is told by number."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


async def _put_in_force(state_dir: Path, name: str, reason: str, *, back: bool) -> None:
    from accord.cli.local.session import open_session
    from accord.cli.render.output import note
    from accord.errors import NotFound

    async with open_session(state_dir) as session:
        models, operator = session.client.models, _login()
        if back and not name:
            newest = await anext(models.list(), None)
            if newest is None:
                raise NotFound("there is no model yet, so nothing to roll back", reason="MODEL_NOT_FOUND")
            name = newest.run_id
        change = models.roll_back if back else models.promote
        model = await change(name, reason=reason, operator=operator)
    note(f"{model.name} is in force for {model.run_id}")


@app.command("export")
def export(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model of `accord models list`.")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="The folder to make; it may not exist yet.")],
) -> None:
    """Copy a model into a folder that `from_pretrained` loads, its digest verified."""
    run_async(_export(options(context).state_dir, name, destination))


async def _export(state_dir: Path, name: str, destination: Path) -> None:
    from accord.cli.local.model_export import export_model, refuse_existing
    from accord.cli.local.session import open_session
    from accord.cli.render.output import note

    refuse_existing(destination)
    async with open_session(state_dir) as session:
        model = await session.client.models.get(name)
        if model.weights.uri.startswith("grpc://"):
            await session.services("trainer")  # serves its published folders
        await export_model(model.weights, destination)
    note(f"{model.name} is in {destination} (digest {model.weights.digest[:12]} verified)")
    note(f'Load it: AutoModelForCausalLM.from_pretrained("{destination}")')
