"""The report as one self-contained HTML file: no network, no scripts, inline plots."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from accord.names import stage_title
from accord.report.figures import figures
from accord.report.model import Report
from accord.report.text import duration, generated_by, number, percent, signed, stage_order


def render_html(report: Report) -> str:
    """The complete page. Every text that comes from a run (prompts, answers, names) is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number,
        signed=signed,
        percent=percent,
        duration=duration,
        stage_title=stage_title,
        generated_by=generated_by,
    )
    stages = sorted({name for row in report.iterations for name in row.stage_seconds}, key=stage_order)
    # The SVGs come from matplotlib, which escapes its texts; nothing else is passed unescaped.
    plots = [(title, note, Markup(svg)) for title, note, svg in figures(report)]
    return environment.get_template("report.html.j2").render(
        report=report,
        stages=stages,
        plots=plots,
        answers=report.side_by_side(),
        base=report.base,
        active=report.active,
    )
