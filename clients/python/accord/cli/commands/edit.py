"""`accord runs edit`: changes the editable fields of an active run's spec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accord.cli.options import Format, options, run_async


def edit(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="RUN|FILE", help="The run's name, or its edited run file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a field: `rollout.engine=vllm`. Repeatable."),
    ] = None,
    wait: Annotated[
        bool, typer.Option(help="Wait until the new engine serves and the previous one has drained.")
    ] = True,
    format: Annotated[Format, typer.Option("--format", "-f", help="Output format.")] = Format.table,
) -> None:
    """Edit an active run: rollout.engine, rollout.replicas, rollout.engineOptions. Other fields cannot be edited.

    The new engine takes over as with `accord runs swap-engine`. Exit code 1 if it is refused.
    """
    if not overrides and not Path(target).is_file():
        raise typer.BadParameter(
            f"{target} is not a run file; pass the changes with --set KEY=VALUE", param_hint="--set"
        )
    raise typer.Exit(run_async(_edit(options(context).state_dir, target, overrides or [], wait, format)))


async def _edit(state_dir: Path, target: str, overrides: list[str], wait: bool, format: Format) -> int:
    from accord.cli.commands.swap_engine import until_over
    from accord.cli.local.session import open_session
    from accord.cli.render.output import note, print_json
    from accord.cli.render.shapes import run_full
    from accord.controller import v1 as controller_v1
    from accord.runfile import load_edits, load_run

    whole = Path(target).is_file()
    wanted, fields = (load_run(target, overrides), []) if whole else load_edits(target, overrides)
    async with open_session(state_dir) as session:
        run_id = wanted.run_id
        after = max([event.sequence async for event in session.client.runs.events(run_id)], default=0)
        swaps = len((await session.client.runs.get(run_id)).status.swaps)
        edited = await session.client.runs.update(wanted, fields)
        swap = edited.status.swaps[-1] if len(edited.status.swaps) > swaps else None
        if swap is not None and wait:
            swap = await until_over(session, run_id, swap.number, after, quiet=format is Format.json)
            edited = await session.client.runs.get(run_id)
    if format is Format.json:
        print_json(run_full(edited))
    elif swap is None:
        note(f"{run_id} already matches; the rollout engine is unchanged")
    elif swap.state == controller_v1.SWAP_STATE_PENDING:
        note(f"Swap {swap.number} of {run_id} is pending and continues with the run: accord runs watch {run_id}")
    return 1 if swap is not None and swap.state == controller_v1.SWAP_STATE_REFUSED else 0
