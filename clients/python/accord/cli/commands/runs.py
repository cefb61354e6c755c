"""`accord runs`: list, inspect, watch, pause, resume, cancel and edit runs; swap their engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from accord.cli.commands.edit import edit
from accord.cli.commands.swap_engine import swap_engine
from accord.cli.options import Format, Interrupted, options, run_async

app = typer.Typer(help="List, inspect and control runs.", no_args_is_help=True)
app.command("swap-engine")(swap_engine)
app.command("edit")(edit)
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="Output format.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's name.")]


@app.command("list")
def list_runs(context: typer.Context, format: FormatOption = Format.table) -> None:
    """List all runs, newest first."""
    run_async(_list(options(context).state_dir, format))


async def _list(state_dir: Path, format: Format) -> None:
    from accord.cli.local.session import open_session
    from accord.cli.render.output import out, print_json
    from accord.cli.render.shapes import run_summary

    async with open_session(state_dir) as session:
        rows = [run_summary(run) async for run in session.client.runs.list()]
    if format is Format.json:
        print_json(rows)
        return
    if not rows:
        out().print("No runs yet. To start one: accord run FILE")
        return
    from rich.table import Table

    table = Table("run", "state", "iteration", "stage", "held-out score", "created")
    for row in rows:
        scores = " → ".join(f"{score:.3f}" for score in row["heldout_scores"])
        stage = row["stage"] or ""
        if row["total_steps"] and row["state"] == "running":
            stage += f" {row['step']}/{row['total_steps']}"
        created = (row["create_time"] or "")[:16].replace("T", " ")
        table.add_row(row["run_id"], row["state"], f"{row['iteration']}/{row['iterations']}", stage, scores, created)
    out().print(table)


@app.command("get")
def get(context: typer.Context, run: RunArgument, format: FormatOption = Format.table) -> None:
    """Show a run's state and results; with --format json the whole resource."""
    run_async(_get(options(context).state_dir, run, format))


async def _get(state_dir: Path, run_id: str, format: Format) -> None:
    from accord.cli.local.session import open_session
    from accord.cli.render.output import out, print_json
    from accord.cli.render.report_table import report_table
    from accord.cli.render.shapes import run_full
    from accord.report.report import build_report

    async with open_session(state_dir) as session:
        found = await session.client.runs.get(run_id)
    if format is Format.json:
        print_json(run_full(found))
    else:
        out().print(report_table(build_report(found)))


@app.command("watch")
def watch(context: typer.Context, run: RunArgument, format: FormatOption = Format.table) -> None:
    """Follow a run until it ends. Ctrl-C stops watching, not the run. With --format json: one event per line."""
    raise typer.Exit(run_async(_watch(options(context).state_dir, run, format)))


async def _watch(state_dir: Path, run_id: str, format: Format) -> int:
    from accord.cli.local.session import open_session
    from accord.cli.render.follow import Ending, follow, interrupts
    from accord.cli.render.output import note, out
    from accord.cli.render.progress import Progress
    from accord.cli.render.report_table import report_table
    from accord.cli.render.shapes import event_shape
    from accord.controller import v1 as controller_v1
    from accord.report.report import build_report

    async with open_session(state_dir) as session:
        run = await session.client.runs.get(run_id)
        if format is Format.json:
            async for event in session.client.runs.watch(run_id):
                print(json.dumps(event_shape(event), ensure_ascii=False), flush=True)
        else:
            progress = Progress(run_id, max(1, run.spec.iterations), run.spec.feedback.HasField("simulated"))
            with interrupts() as stop:
                ending = await follow(session, progress, stop)
            if ending is Ending.INTERRUPTED:
                raise Interrupted(f"stopped watching; {run_id} continues")
            if ending is Ending.CONTROLLER_GONE:
                note(f"accord: the controller exited. To continue: accord run --resume {run_id} [CONTROLLER_GONE]")
                return 1
            out().print(report_table(build_report(await session.client.runs.get(run_id))))
        ended = (await session.client.runs.get(run_id)).status.state
    return 1 if ended == controller_v1.RUN_STATE_FAILED else 0


@app.command("cancel")
def cancel(context: typer.Context, run: RunArgument, format: FormatOption = Format.table) -> None:
    """Cancel a run permanently. Its promoted policies stay."""
    run_async(_change(options(context).state_dir, run, "cancel", format))


@app.command("pause")
def pause(context: typer.Context, run: RunArgument, format: FormatOption = Format.table) -> None:
    """Pause a run after its current step. To continue: `accord run --resume RUN` or `accord runs resume RUN`."""
    run_async(_change(options(context).state_dir, run, "pause", format))


@app.command("resume")
def resume(context: typer.Context, run: RunArgument, format: FormatOption = Format.table) -> None:
    """Resume a run in the background. `accord run --resume RUN` also follows it."""
    run_async(_change(options(context).state_dir, run, "resume", format))


async def _change(state_dir: Path, run_id: str, what: str, format: Format) -> None:
    from accord.cli.local.session import open_session
    from accord.cli.render.output import note, print_json
    from accord.cli.render.shapes import run_summary

    async with open_session(state_dir) as session:
        runs = session.client.runs
        changed = await {"cancel": runs.cancel, "pause": runs.pause, "resume": runs.resume}[what](run_id)
        if what == "resume":
            session.keep = True
    summary = run_summary(changed)
    if format is Format.json:
        print_json(summary)
    else:
        pausing = what == "pause" and summary["state"] == "running"
        note(f"{run_id} is {'being paused' if pausing else summary['state']}")
