"""`accord models`: policies that runs promoted, and their base models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from accord.cli.options import Format, options, run_async

app = typer.Typer(help="List, promote, roll back and export promoted policies and base models.", no_args_is_help=True)


@app.command("list")
def list_models(
    context: typer.Context,
    format: Annotated[Format, typer.Option("--format", "-f", help="Output format.")] = Format.table,
) -> None:
    """List all models, newest first."""
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
        out().print("No models yet. Runs promote them: accord run FILE")
        return
    from rich.table import Table

    table = Table("model", "active", "held-out score", "run", "digest", "created")
    for row in rows:
        created = (row["create_time"] or "")[:16].replace("T", " ")
        active = "yes" if row["current"] else ""
        table.add_row(row["name"], active, number(row["heldout_score"]), row["run_id"], row["digest"][:12], created)
    out().print(table)


ReasonOption = Annotated[str, typer.Option("--reason", help="Why; recorded in the history.")]


@app.command("promote")
def promote(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model, as in `accord models list`.")],
    reason: ReasonOption = "",
) -> None:
    """Make a model the active policy of its run. A run in progress is not affected."""
    run_async(_change_active(options(context).state_dir, name, reason, back=False))


@app.command("rollback")
def rollback(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run (default: that of the newest model).")] = "",
    reason: ReasonOption = "",
) -> None:
    """Roll a run back to its previous active policy. Repeat to go further back."""
    run_async(_change_active(options(context).state_dir, run, reason, back=True))


def _login() -> str:
    """The user who runs this command: the login name, or the uid if there is none."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


async def _change_active(state_dir: Path, name: str, reason: str, *, back: bool) -> None:
    from accord.cli.local.session import open_session
    from accord.cli.render.output import note
    from accord.errors import NotFound

    async with open_session(state_dir) as session:
        models, operator = session.client.models, _login()
        if back and not name:
            newest = await anext(models.list(), None)
            if newest is None:
                raise NotFound("There is no model yet, so there is nothing to roll back", reason="MODEL_NOT_FOUND")
            name = newest.run_id
        change = models.roll_back if back else models.promote
        model = await change(name, reason=reason, operator=operator)
    note(f"{model.name} is the active policy of {model.run_id}")


@app.command("export")
def export(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model, as in `accord models list`.")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="The folder to create; it must not exist yet.")],
) -> None:
    """Copy a model into a folder that `from_pretrained` can load. The digest is verified."""
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
    note(f"Exported {model.name} to {destination} (digest {model.weights.digest[:12]} verified)")
    note(f'To load it: AutoModelForCausalLM.from_pretrained("{destination}")')
