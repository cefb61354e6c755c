"""The report for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from accord.names import stage_title
from accord.report.model import Iteration, Report
from accord.report.text import clock, drawn_by, number, percent, signed, stage_order

SIMULATED = "SIMULATED ANNOTATORS: programs gave these preferences, not people."


def report_table(report: Report) -> RenderableType:
    """One row per iteration and a second table of the time each stage took; says SIMULATED ANNOTATORS where it is true.

    Fits 80 columns.
    """
    title = Text(f"Run {report.run_id}: {report.state}", style="bold")
    parts: list[RenderableType] = [title]
    if report.iterations:
        parts += [_figures(report), _times(report)]
    else:
        parts.append(Text("No iteration has ended yet."))
    if len(report.drawings) > 1:
        parts.append(Text(f"Samples drawn by {drawn_by(report.drawings)}."))
    if report.simulated_feedback:
        parts.append(Text(SIMULATED, style="bold yellow"))
    if report.message:
        parts.append(Text(report.message))
    return Group(*parts)


def _figures(report: Report) -> Table:
    table = Table()
    table.add_column("iteration")
    for name in ("held-out score", "gain", "KL nats", "RM acc.", "tokens"):
        table.add_column(name, justify="right")
    table.add_column("promoted")
    base = report.base
    for row in report.iterations:
        table.add_row(
            _name(row),
            number(row.heldout_score),
            signed(_difference(row, base)) if row.number else "",
            number(row.kl_nats, 2),
            percent(row.rm_accuracy) if row.number else "",
            number(row.response_tokens, 1),
            "" if row.number == 0 else Text("yes", style="green") if row.promoted else Text("no", style="yellow"),
        )
    return table


def _times(report: Report) -> Table:
    stages = sorted({name for row in report.iterations for name in row.stage_seconds}, key=stage_order)
    table = Table()
    for name in ("iteration", *(stage_title(stage) for stage in stages), "all"):
        table.add_column(name, justify="left" if name == "iteration" else "right", no_wrap=True)
    for row in report.iterations:
        cells = (clock(row.stage_seconds.get(stage)) for stage in stages)
        table.add_row(_name(row), *cells, clock(row.seconds))
    return table


def _name(row: Iteration) -> str:
    return "0 (base)" if row.number == 0 else str(row.number)


def _difference(row: Iteration, base: Iteration | None) -> float | None:
    if base is None or row.heldout_score is None or base.heldout_score is None:
        return None
    return row.heldout_score - base.heldout_score
