"""`accord runs swap-engine`: other rollout services draw for a run while it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accord.cli.options import Format, options, run_async

if TYPE_CHECKING:
    from accord.cli.local.session import Session
    from accord.controller import v1 as controller_v1


def swap_engine(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's name.")],
    engine: Annotated[str, typer.Option("--engine", help="The engine to start: transformers, vllm, ...")] = "",
    replicas: Annotated[int, typer.Option("--replicas", min=0, help="How many to start; 0: as many as draw now.")] = 0,
    engine_options: Annotated[
        str, typer.Option("--engine-options", metavar="JSON", help="What the engine alone can be told.")
    ] = "",
    address: Annotated[
        list[str] | None,
        typer.Option("--address", metavar="HOST:PORT", help="Instead: a service that runs already. Repeatable."),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the newcomers draw and the old ones are done.")] = True,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to print it.")] = Format.table,
) -> None:
    """Let another rollout engine draw for a run while it goes on. Exit code 1 when the newcomer is refused.

    It gets the weights in force and is held to the contract before it draws; the old one finishes what it had begun.
    """
    if bool(engine or replicas or engine_options) and address and not engine:
        raise typer.BadParameter("--replicas and --engine-options go with --engine", param_hint="--address")
    if not engine and not address:
        raise typer.BadParameter("give --engine NAME, or --address HOST:PORT of one that runs", param_hint="--engine")
    told = _parsed(engine_options)
    state_dir = options(context).state_dir
    raise typer.Exit(run_async(_swap(state_dir, run, engine, replicas, told, address or [], wait, format)))


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise typer.BadParameter(f"is no JSON: {error}", param_hint="--engine-options") from error
    if not isinstance(found, dict):
        raise typer.BadParameter("is no JSON object", param_hint="--engine-options")
    return found


async def _swap(
    state_dir: Path,
    run_id: str,
    engine: str,
    replicas: int,
    told: dict[str, Any],
    addresses: list[str],
    wait: bool,
    format: Format,
) -> int:
    from accord.cli.local.session import open_session
    from accord.cli.render.output import note, print_json
    from accord.controller import v1 as controller_v1

    async with open_session(state_dir) as session:
        after = max([event.sequence async for event in session.client.runs.events(run_id)], default=0)
        swap = await session.client.runs.swap_engine(
            run_id, engine, replicas=replicas, engine_options=told, addresses=addresses
        )
        if wait:
            swap = await until_over(session, run_id, swap.number, after, quiet=format is Format.json)
    if format is Format.json:
        print_json(swap_shape(swap))
    elif swap.state == controller_v1.SWAP_STATE_PENDING:
        note(f"swap {swap.number} of {run_id} is pending; it goes on with the run: accord runs watch {run_id}")
    return 1 if swap.state == controller_v1.SWAP_STATE_REFUSED else 0


async def until_over(
    session: Session, run_id: str, number: int, after: int, *, quiet: bool
) -> controller_v1.EngineSwap:
    """The swap when it is over, or when the run is not at work any more. Tells what happens to it."""
    from accord.cli.render.output import note

    async for event in session.client.runs.watch(run_id, after_sequence=after):
        if event.kind.startswith("swap_"):
            if not quiet:
                note(f"{run_id}: {event.message}")
            if event.metrics.get("swap") == number and event.kind in ("swap_done", "swap_refused"):
                break
    return (await session.client.runs.get(run_id)).status.swaps[number - 1]


def swap_shape(swap: controller_v1.EngineSwap) -> dict[str, Any]:
    """For programs: `swap, state, engine, replicas, addresses, reason, message, checks`."""
    from accord.names import swap_state_name

    return {
        "swap": swap.number,
        "state": swap_state_name(swap.state),
        "engine": swap.services.engine,
        "replicas": len(swap.services.addresses) or swap.services.replicas,
        "addresses": list(swap.services.addresses),
        "reason": swap.reason,
        "message": swap.message,
        "checks": list(swap.checks),
    }
