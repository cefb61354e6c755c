"""`accord annotate`: a person judges answers in the terminal, blind and in random order."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accord.cli.options import options, run_async


def annotate(
    context: typer.Context,
    annotator: Annotated[
        str | None, typer.Option("--annotator", "-a", help="Who you are; kept with each answer (default: your login).")
    ] = None,
    queue: Annotated[str, typer.Option("--queue", "-q", help="Only this queue, such as `demo/iteration-1`.")] = "",
    count: Annotated[int | None, typer.Option("--count", min=1, help="Stop after so many answers.")] = None,
) -> None:
    """Compare answers: 1 or 2 for the better one, t for a tie, s to skip, q to quit. Each is saved at once."""
    run_async(_annotate(options(context).state_dir, annotator or _login(), queue, count))


def _login() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise typer.BadParameter("this user has no name; say who you are", param_hint="--annotator") from None


async def _annotate(state_dir: Path, name: str, queue: str, count: int | None) -> None:
    from accord.cli.annotation import annotate_tasks
    from accord.cli.keys import Keys
    from accord.cli.session import service_client

    async with service_client(state_dir, "preference") as client, Keys() as keys:
        await annotate_tasks(client.preferences, keys, name, queue, count)
