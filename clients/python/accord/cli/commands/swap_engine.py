"""`accord runs swap-engine`: replaces the rollout engine of an active run."""

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
    replicas: Annotated[
        int, typer.Option("--replicas", min=0, help="Number of replicas to start; 0: as many as serve now.")
    ] = 0,
    engine_options: Annotated[
        str, typer.Option("--engine-options", metavar="JSON", help="Options of this engine.")
    ] = "",
    address: Annotated[
        list[str] | None,
        typer.Option(
            "--address",
            metavar="HOST:PORT",
            help="Instead of starting replicas, use a running rollout service. Repeatable.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option(help="Wait until the new engine serves and the previous one has drained.")
    ] = True,
    format: Annotated[Format, typer.Option("--format", "-f", help="Output format.")] = Format.table,
) -> None:
    """Replace the rollout engine of an active run. Exit code 1 if the new engine is refused.

    The new engine receives the active weights and must pass the contract's checks before it serves. The previous
    engine finishes its requests.
    """
    if bool(engine or replicas or engine_options) and address and not engine:
        raise typer.BadParameter("--replicas and --engine-options need --engine", param_hint="--address")
    if not engine and not address:
        raise typer.BadParameter(
            "give --engine NAME, or --address HOST:PORT of a running rollout service", param_hint="--engine"
        )
    given = _parsed(engine_options)
    state_dir = options(context).state_dir
    raise typer.Exit(run_async(_swap(state_dir, run, engine, replicas, given, address or [], wait, format)))


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise typer.BadParameter(f"is not JSON: {error}", param_hint="--engine-options") from error
    if not isinstance(found, dict):
        raise typer.BadParameter("is not a JSON object", param_hint="--engine-options")
    return found


async def _swap(
    state_dir: Path,
    run_id: str,
    engine: str,
    replicas: int,
    engine_options: dict[str, Any],
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
            run_id, engine, replicas=replicas, engine_options=engine_options, addresses=addresses
        )
        if wait:
            swap = await until_over(session, run_id, swap.number, after, quiet=format is Format.json)
    if format is Format.json:
        print_json(swap_shape(swap))
    elif swap.state == controller_v1.SWAP_STATE_PENDING:
        note(f"Swap {swap.number} of {run_id} is pending and continues with the run: accord runs watch {run_id}")
    return 1 if swap.state == controller_v1.SWAP_STATE_REFUSED else 0


async def until_over(
    session: Session, run_id: str, number: int, after: int, *, quiet: bool
) -> controller_v1.EngineSwap:
    """The swap once it is over, or once the run is no longer active. Prints its events."""
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
