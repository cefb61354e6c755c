"""`accord run`: starts or resumes a run and follows it until it ends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accord.cli.options import Interrupted, options, run_async

if TYPE_CHECKING:
    from accord.cli.local.session import Session
    from accord.controller import v1 as controller_v1
    from accord.report.model import Report


def run(
    context: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help="The run file (YAML). With --resume: a run's name or run file; default: the latest unfinished run.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a field: `policy.steps=5`. Repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run instead of starting one.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start the run and return; the services stay up.")] = False,
    report_file: Annotated[
        Path | None, typer.Option("--report", help="Where to write the report (default: RUN.report.html).")
    ] = None,
) -> None:
    """Run the RLHF loop of FILE: collect feedback, train the reward model and the policy, evaluate, repeat.

    Ctrl-C pauses the run without losing work.
    """
    if target is None and not resume:
        raise typer.BadParameter(
            "give a run file, or --resume to continue the latest unfinished run", param_hint="FILE"
        )
    if resume and overrides:
        raise typer.BadParameter("cannot be used with --resume: an existing run keeps its spec", param_hint="--set")
    if target is not None and not resume and not Path(target).is_file():
        raise typer.BadParameter(f"{target} does not exist or is not a file", param_hint="FILE")
    code = run_async(_run(options(context).state_dir, target, overrides or [], resume, detach, report_file))
    raise typer.Exit(code)


async def _run(
    state_dir: Path, target: str | None, overrides: list[str], resume: bool, detach: bool, report_file: Path | None
) -> int:
    from accord.cli.local.session import open_session
    from accord.cli.render.output import note
    from accord.runfile import load_run

    # Errors in the file are reported before anything starts.
    wanted = None if resume else load_run(Path(target or ""), overrides)
    async with open_session(state_dir) as session:
        if wanted is not None:
            run_id, after = await _create(session, wanted), 0
        else:
            run_id, after = await _resume(session, target)
        if detach:
            session.keep = True
            note(
                f"{run_id} runs in the background. To follow it: accord runs watch {run_id}. "
                f"To end it: accord runs cancel {run_id}"
            )
            note(f"The services stay up. To stop them: kill {session.controller.pid}")
            return 0
        return await _follow(session, run_id, after, report_file)


async def _create(session: Session, wanted: controller_v1.Run) -> str:
    from accord.controller import v1 as controller_v1
    from accord.errors import FailedPrecondition

    created = await session.client.runs.create(wanted)
    if created.status.state in (controller_v1.RUN_STATE_PAUSED, controller_v1.RUN_STATE_FAILED):
        raise FailedPrecondition(
            f"A run named {created.run_id} already exists and is unfinished. Choose another metadata.name, "
            f"or continue it: accord run --resume {created.run_id}",
            reason="RUN_EXISTS",
        )
    return created.run_id


async def _resume(session: Session, target: str | None) -> tuple[str, int]:
    """The run to resume, and the sequence number of its last event so far."""
    from accord.controller import v1 as controller_v1
    from accord.errors import NotFound
    from accord.runfile import load_run

    ended = (controller_v1.RUN_STATE_SUCCEEDED, controller_v1.RUN_STATE_CANCELLED)
    if target is None:
        unfinished = [run async for run in session.client.runs.list() if run.status.state not in ended]
        if not unfinished:
            raise NotFound(
                f"There is no unfinished run in {session.state_dir}. To see all runs: accord runs list",
                reason="NOTHING_TO_RESUME",
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
                f"Pausing {run_id} after its current step. Press Ctrl-C again to exit now. No work is lost either way."
            )
            await session.client.runs.pause(run_id)
            ending = await follow(session, progress, stop)
            if ending is not Ending.CONTROLLER_GONE:
                raise Interrupted(f"{run_id} is {await _state(session, run_id)}. To continue: {resume}")
    if ending is Ending.CONTROLLER_GONE:
        note(
            f"accord: the controller (process {session.controller.pid}) exited. The work of {run_id} is saved. "
            f"To continue: {resume} [CONTROLLER_GONE]"
        )
        return 1
    return await _finish(session, run_id, report_file)


async def _state(session: Session, run_id: str) -> str:
    from accord.names import state_name

    state = state_name((await session.client.runs.get(run_id)).status.state)
    return "being paused" if state == "running" else state


async def _finish(session: Session, run_id: str, report_file: Path | None) -> int:
    """Prints the result of the run. The exit code is 0 only if it succeeded."""
    from accord.cli.commands.report import collect, write_html
    from accord.cli.render.output import note, out
    from accord.cli.render.report_table import report_table

    report = await collect(session, run_id)
    if report.iterations:
        out().print(report_table(report))
    if report.state != "succeeded":
        note(f"accord: {_unfinished(report)}")
        return 1
    path = write_html(report, report_file)
    if path is not None:
        note(f"Report: {path}")
    note(f'Try the policy: accord sample {run_id}-{report.active.number} "..."' if report.active else "")
    return 0


def _unfinished(report: Report) -> str:
    """Why a run did not succeed, and how to continue where that is possible."""
    if report.state == "cancelled":
        return f"Run {report.run_id} was cancelled and cannot be resumed."
    ended = "failed" if report.state == "failed" else f"is {report.state}"
    reason = f": {report.message}" if report.message else ""
    return f"Run {report.run_id} {ended}{reason}. To continue: accord run --resume {report.run_id}"
