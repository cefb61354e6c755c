"""`accord up`: starts the controller and the services, shows their state, and stops them on Ctrl-C."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accord.cli.options import options, run_async

if TYPE_CHECKING:
    from rich.table import Table

    from accord.cli.local.session import Session
    from accord.discovery import ServiceRecord

REFRESH_SECONDS = 1.0


def up(
    context: typer.Context,
    services: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SERVICE]...", help="rollout, reward, preference, trainer (default: all)."),
    ] = None,
    console: Annotated[bool, typer.Option(help="Also start the web console if it is installed.")] = True,
) -> None:
    """Start the controller, the services and the web console, and keep them running until Ctrl-C."""
    raise typer.Exit(run_async(_up(options(context).state_dir, services or [], console)))


async def _up(state_dir: Path, names: list[str], console: bool) -> int:
    from accord import discovery
    from accord.cli.local import controller_process
    from accord.cli.local.session import open_session
    from accord.cli.render.output import err, note, out

    unknown = [name for name in names if name not in discovery.SERVICES or name == "controller"]
    if unknown:
        known = ", ".join(name for name in discovery.SERVICES if name != "controller")
        raise typer.BadParameter(f"unknown service {unknown[0]!r}; available: {known}", param_hint="SERVICE")
    running = controller_process.find(state_dir)
    async with open_session(state_dir) as session:
        if running is not None:
            with err().status("Starting missing services ..."):
                await session.client.runs.ensure_services(names)
            out().print(_table(_records(state_dir)))
            note(f"Already up. To stop: press Ctrl-C where it was started, or run: kill {running.pid}")
            return 0
        return await _keep_up(session, names, console)


async def _keep_up(session: Session, names: list[str], console: bool) -> int:
    """Shows the services until Ctrl-C (exit code 0) or until the controller dies (1)."""
    from rich.live import Live

    from accord.cli.render.follow import interrupts
    from accord.cli.render.output import err, note

    live_view = err().is_terminal
    seen: dict[str, str] = {}
    starting = asyncio.create_task(session.client.runs.ensure_services(names))
    serving = asyncio.create_task(_console(session.state_dir)) if console and _has_console() else None
    try:
        with interrupts() as stop, Live(console=err(), auto_refresh=False, transient=True) as live:
            announced = False
            while stop.empty():
                if not session.controller.alive():
                    note(f"accord: the controller exited unexpectedly; see {session.state_dir}/logs [CONTROLLER_GONE]")
                    return 1
                records = _records(session.state_dir)
                if live_view:
                    live.update(_table(records), refresh=True)
                else:
                    _announce_changes(records, seen)
                if starting.done() and not announced:
                    starting.result()
                    note("Up. To start a run, in another terminal: accord run FILE. Ctrl-C stops all services.")
                    announced = True
                await _pause(stop)
        note("Stopping the services ...")
    finally:
        working = [task for task in (starting, serving) if task is not None]
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    await session.controller.stop()
    note("Stopped. To continue an unfinished run: accord run --resume")
    return 0


def _has_console() -> bool:
    import importlib.util

    return importlib.util.find_spec("accord_console") is not None and importlib.util.find_spec("starlette") is not None


async def _console(state_dir: Path) -> None:
    """Keeps the web console running until cancelled. Prints how to sign in, or why it did not start."""
    from accord import discovery
    from accord.cli.commands.console import keep_console
    from accord.cli.render.output import note

    log = state_dir / "logs" / "console.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    keeping = asyncio.create_task(keep_console(state_dir, [], log))
    try:
        while not keeping.done() and discovery.read(state_dir, "console") is None:
            await asyncio.wait((keeping,), timeout=REFRESH_SECONDS / 4)
        found = discovery.read(state_dir, "console")
        if found is not None and not keeping.done():
            note(f"Console: {found.url}/operator?token={found.token}")
            note("Invite annotators in another terminal: accord console invite NAME")
        await keeping
        last = (log.read_text(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
        note(f"The console exited; the services stay up. {last}")
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def _pause(stop: asyncio.Queue[int]) -> None:
    """Waits for a refresh interval or until a signal arrives; the signal stays in the queue."""
    try:
        async with asyncio.timeout(REFRESH_SECONDS):
            stop.put_nowait(await stop.get())
    except TimeoutError:
        return


def _announce_changes(records: dict[str, ServiceRecord | None], seen: dict[str, str]) -> None:
    from accord.cli.render.output import note

    for name, record in records.items():
        state = f"up at {record.address}, process {record.pid}" if record else "down"
        if seen.get(name, "down") != state:
            note(f"{name}: {state}")
        seen[name] = state


def _records(state_dir: Path) -> dict[str, ServiceRecord | None]:
    from accord import discovery

    return {name: discovery.read(state_dir, name) for name in reversed(discovery.SERVICES)}


def _table(records: dict[str, ServiceRecord | None]) -> Table:
    import time

    from rich.table import Table
    from rich.text import Text

    from accord.report.text import clock

    table = Table("service", "state", "address", "process")
    for name in ("memory", "up since"):
        table.add_column(name, justify="right")
    for name, record in records.items():
        if record is None:
            table.add_row(name, Text("down", style="dim"), "", "", "", "")
        else:
            since = clock(time.time() - record.start_time)
            table.add_row(name, Text("up", style="green"), record.address, str(record.pid), _memory(record.pid), since)
    return table


def _memory(pid: int) -> str:
    import psutil

    from accord.cli.commands.gc import size

    try:
        return size(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return ""
