"""`accord report RUN`: the results of a run as an HTML file, JSON or a table."""

from __future__ import annotations

import importlib.util
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accord.cli.options import options, run_async

if TYPE_CHECKING:
    from accord.cli.local.session import Session
    from accord.report.model import Report


class ReportFormat(StrEnum):
    """The formats of a report."""

    html = "html"
    json = "json"
    table = "table"


def report(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's name.")],
    format: Annotated[ReportFormat, typer.Option("--format", "-f", help="html: one file with plots and answers.")] = (
        ReportFormat.html
    ),
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write it (default: RUN.report.html; json and table: stdout)."),
    ] = None,
) -> None:
    """Report on a run: scores, KL, reward-model accuracy, times, curves, answers before and after."""
    run_async(_report(options(context).state_dir, run, format, output))


async def _report(state_dir: Path, run_id: str, format: ReportFormat, output: Path | None) -> None:
    from accord import atomic
    from accord.cli.local.session import open_session
    from accord.cli.render.output import note, out, print_json
    from accord.cli.render.report_table import report_table
    from accord.report.json_form import report_json

    if format is ReportFormat.html:
        _need_plots()
    async with open_session(state_dir) as session:
        found = await collect(session, run_id)
    if format is ReportFormat.html:
        note(f"Report: {write_html(found, output)}")
    elif format is ReportFormat.json:
        if output is None:
            print_json(report_json(found))
        else:
            atomic.write_text(
                output, json.dumps(report_json(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            )
    elif output is None:
        out().print(report_table(found))
    else:
        import io

        from rich.console import Console

        shown = io.StringIO()
        Console(file=shown, width=100).print(report_table(found))
        atomic.write_text(output, shown.getvalue())


async def collect(session: Session, run_id: str) -> Report:
    """The report of a run, from the controller."""
    from accord.report.report import build_report

    run = await session.client.runs.get(run_id)
    return build_report(run, [event async for event in session.client.runs.events(run_id)])


def write_html(found: Report, output: Path | None) -> Path | None:
    """Writes the HTML report and returns its path; None if the plotting libraries are not installed."""
    from accord import atomic

    if not _plots_installed():
        return None
    from accord.report.html import render_html

    path = output or Path(f"{found.run_id}.report.html")
    atomic.write_text(path, render_html(found))
    return path


def _plots_installed() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("jinja2", "matplotlib"))


def _need_plots() -> None:
    from accord.errors import FailedPrecondition

    if not _plots_installed():
        raise FailedPrecondition(
            "The HTML report needs jinja2 and matplotlib: pip install 'accord-rlhf[report]'. "
            "Or use --format json or --format table",
            reason="REPORT_NOT_INSTALLED",
        )
