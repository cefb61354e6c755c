"""`accord run`: starts or resumes a run and follows it to its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accord.cli.options import Interrupted, options, run_async

if TYPE_CHECKING:
    from accord.cli.local.session import Session
    from accord.controller import v1 as controller_v1


def run(
    context: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(metavar="[FILE]", help="The run file (YAML); with --resume a run's name, or nothing."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a field: `policy.steps=5`. May be repeated."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run: the one named, else the latest that has not ended.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start it and return; services stay up.")] = False,
    report_file: Annotated[
        Path | None, typer.Option("--report", help="Where the report goes (default: RUN.report.html).")
    ] = None,
) -> None:
    """Run the loop of FILE: collect, reward model, policy, evaluate, again. Ctrl-C pauses it; nothing is lost."""
    if target is None and not resume:
        raise typer.BadParameter("name a run file, or give --resume to go on with the latest run", param_hint="FILE")
    if resume and overrides:
        raise typer.BadParameter("a run that exists keeps its spec; --set goes with a new one", param_hint="--set")
    if target is not None and not resume and not Path(target).is_file():
        raise typer.BadParameter(f"{target} does not exist or is no file", param_hint="FILE")
    code = run_async(_run(options(context).state_dir, target, overrides or [], resume, detach, report_file))
    raise typer.Exit(code)


async def _run(
    state_dir: Path, target: str | None, overrides: list[str], resume: bool, detach: bool, report_file: Path | None
) -> int:
    from accord.cli.local.session import open_session
    from accord.cli.render.output import note
    from accord.runfile import load_run

    # A wrong file is told before anything is started.
    wanted = None if resume else load_run(Path(target or ""), overrides)
    async with open_session(state_dir) as session:
        if wanted is not None:
            run_id, after = await _create(session, wanted), 0
        else:
            run_id, after = await _resume(session, target)
        if detach:
            session.keep = True
            note(f"{run_id} runs in the background: accord runs watch {run_id}, accord runs cancel {run_id}")
            note(f"The services stay up; stop them with: kill {session.controller.pid}")
            return 0
        return await _follow(session, run_id, after, report_file)


async def _create(session: Session, wanted: controller_v1.Run) -> str:
    from accord.controller import v1 as controller_v1
    from accord.errors import FailedPrecondition

    created = await session.client.runs.create(wanted)
    if created.status.state in (controller_v1.RUN_STATE_PAUSED, controller_v1.RUN_STATE_FAILED):
        raise FailedPrecondition(
            f"run {created.run_id} exists and is not finished; go on with `accord run --resume {created.run_id}`, "
            "or give the new one another name in metadata.name",
            reason="RUN_EXISTS",
        )
    return created.run_id


async def _resume(session: Session, target: str | None) -> tuple[str, int]:
    """The run to go on with, and the sequence of its last event so far."""
    from accord.controller import v1 as controller_v1
    from accord.errors import NotFound
    from accord.runfile import load_run

    ended = (controller_v1.RUN_STATE_SUCCEEDED, controller_v1.RUN_STATE_CANCELLED)
    if target is None:
        unfinished = [run async for run in session.client.runs.list() if run.status.state not in ended]
        if not unfinished:
            raise NotFound(
                f"no unfinished run in {session.state_dir}; `accord runs list` shows all", reason="NOTHING_TO_RESUME"
            )
        run = unfinished[0]
    else:
        run_id = load_run(Path(target)).run_id if Path(target).is_file() else target
        run = await session.client.runs.get(run_id)
    after = max([event.sequence async for event in session.client.runs.events(run.run_id)], default=0)
    if run.status.state in (controller_v1.RUN_STATE_PAUSED, controller_v1.RUN_STATE_FAILED):
        await session.client.runs.resume(run.run_id)
    return run.run_id, after


async def _follow(session: Session, run_id: str, after: int, report_file: Path | None) -> int:
    from accord.cli.render.follow import Ending, follow, interrupts
    from accord.cli.render.output import note
    from accord.cli.render.progress import Progress

    resume = f"accord run --resume {run_id}"
    run = await session.client.runs.get(run_id)
    progress = Progress(run_id, max(1, run.spec.iterations), run.spec.feedback.HasField("simulated"), sequence=after)
    progress.message = f"starting; logs are in {session.state_dir / 'logs'}"
    note(f"{run_id}: {progress.message}")
    with interrupts() as stop:
        ending = await follow(session, progress, stop)
        if ending is Ending.INTERRUPTED:
            note(
                f"Pausing {run_id} at its next durable point. Ctrl-C again leaves at once; nothing is lost either way."
            )
            await session.client.runs.pause(run_id)
            ending = await follow(session, progress, stop)
            if ending is not Ending.CONTROLLER_GONE:
                raise Interrupted(f"{run_id} is {await _state(session, run_id)}. Go on with: {resume}")
    if ending is Ending.CONTROLLER_GONE:
        note(
            f"accord: the controller (process {session.controller.pid}) is gone. What {run_id} has done is kept. "
            f"Go on with: {resume} [CONTROLLER_GONE]"
        )
        return 1
    return await _finish(session, run_id, report_file)


async def _state(session: Session, run_id: str) -> str:
    from accord.names import state_name

    state = state_name((await session.client.runs.get(run_id)).status.state)
    return "being paused" if state == "running" else state


async def _finish(session: Session, run_id: str, report_file: Path | None) -> int:
    """Prints what the run came to; 0 only where it succeeded."""
    from accord.cli.commands.report import collect, write_html
    from accord.cli.render.output import note, out
    from accord.cli.render.report_table import report_table

    report = await collect(session, run_id)
    if report.iterations:
        out().print(report_table(report))
    if report.state != "succeeded":
        again = "" if report.state == "cancelled" else f" Go on with: accord run --resume {run_id}"
        note(f"accord: run {run_id} is {report.state}: {report.message or 'no reason was given'}.{again}")
        return 1
    path = write_html(report, report_file)
    if path is not None:
        note(f"Report: {path}")
    note(f'Ask the policy: accord sample {run_id}-{report.in_force.number} "..."' if report.in_force else "")
    return 0
