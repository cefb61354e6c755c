"""The report's plots as inline SVG, with text in the font and colour of the page, for light and dark pages."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from accord.names import stage_title
from accord.report import series
from accord.report.model import Iteration, Report
from accord.report.text import duration, stage_order

# The palette of Okabe and Ito: colour-blind readers can distinguish these, on white and on black.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# A placeholder for the page's text colour; replaced by `currentColor` in the SVG.
INK = "#010203"
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def figures(report: Report) -> list[tuple[str, str, str]]:
    """`(title, note, svg)` of every plot that this report has data for, in reading order."""
    found: list[tuple[str, str, str]] = []
    for key, title, note, draw in PLOTS:
        svg = _svg(key, report, draw)
        if svg is not None:
            found.append((title, note, svg))
    return found


def heldout(report: Report, axes: Any) -> bool:
    """Held-out score of each iteration's candidate; hollow if it was not promoted."""
    rows = [row for row in report.iterations if row.heldout_score is not None]
    if not rows:
        return False
    axes.plot([row.number for row in rows], [row.heldout_score for row in rows], color=PALETTE[0], alpha=0.45, zorder=1)
    for row in rows:
        kept = row.promoted or row.number == 0
        face = PALETTE[0] if kept else "none"
        axes.scatter(row.number, row.heldout_score, s=70, facecolor=face, edgecolor=PALETTE[0], linewidth=1.8, zorder=2)
        axes.annotate(
            f"{row.heldout_score:.3f}", (row.number, row.heldout_score), (0, 9), textcoords="offset points", ha="center"
        )
    if rows[0].number == 0:
        axes.axhline(rows[0].heldout_score, color=INK, alpha=0.35, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.margins(x=0.12, y=0.22)
    _iteration_ticks(axes, rows)
    return True


def rm_accuracy(report: Report, axes: Any) -> bool:
    """Held-out accuracy of each iteration's reward model, compared with guessing (50 %)."""
    rows = [row for row in report.iterations if row.rm_accuracy is not None]
    if not rows:
        return False
    shares = [100 * (row.rm_accuracy or 0.0) for row in rows]
    axes.bar([row.number for row in rows], shares, width=0.5, color=PALETTE[2])
    for row, share in zip(rows, shares, strict=True):
        axes.annotate(f"{share:.1f} %", (row.number, share), (0, 4), textcoords="offset points", ha="center")
    axes.axhline(50, color=INK, alpha=0.5, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_ylim(0, 112)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_xlim(rows[0].number - 0.8, rows[-1].number + 0.8)
    axes.set_ylabel("%")
    _iteration_ticks(axes, rows)
    return True


def reward(report: Report, axes: Any) -> bool:
    """Reward and score at each policy step."""
    return _curves(report, axes, "policy", series.REWARD_CURVES)


def kl(report: Report, axes: Any) -> bool:
    """KL to the reference, nats per response, at each policy step, and on held-out prompts after each iteration."""
    drawn = _curves(report, axes, "policy", series.KL_CURVES)
    if drawn:
        ends = series.iteration_ends(report, "policy")
        rows = [
            (ends[row.number], row.kl_nats)
            for row in report.iterations
            if row.kl_nats is not None and row.number in ends
        ]
        if rows:
            axes.scatter(
                [x for x, _ in rows], [y for _, y in rows], s=44, color=PALETTE[1], zorder=3, label="held-out prompts"
            )
            axes.legend(loc="best")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.set_ylabel("nats per response")
    return drawn


def lengths(report: Report, axes: Any) -> bool:
    """Mean response length at each policy step."""
    drawn = _curves(report, axes, "policy", series.LENGTH_CURVES)
    if drawn:
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        axes.set_ylabel("tokens")
    return drawn


def staleness(report: Report, axes: Any) -> bool:
    """The age in versions of the samples of each policy step; no plot if all are current."""
    if not any(value for _, value in series.curve(report, "policy", ("staleness_max",))):
        return False
    drawn = _curves(report, axes, "policy", series.STALENESS_CURVES)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("versions")
    return drawn


def mismatch(report: Report, axes: Any) -> bool:
    """The difference between the policy that generated the samples and the one that is trained."""
    drawn = _curves(report, axes, "policy", series.MISMATCH_CURVES)
    if drawn:
        axes.set_ylim(bottom=0)
        axes.set_ylabel("nats per token")
    return drawn


def reward_model(report: Report, axes: Any) -> bool:
    """Loss and accuracy of the reward model during its training."""
    return _curves(report, axes, "reward_model", series.REWARD_MODEL_CURVES)


def stage_times(report: Report, axes: Any) -> bool:
    """Wall-clock time of each iteration by stage."""
    rows = [row for row in report.iterations if row.stage_seconds]
    if not rows:
        return False
    names = sorted({name for row in rows for name in row.stage_seconds}, key=stage_order)
    longest = max(row.seconds for row in rows) or 1.0
    scale, unit = (60.0, "minutes") if longest >= 180 else (1.0, "seconds")
    left = [0.0] * len(rows)
    labels = ["base" if row.number == 0 else f"iteration {row.number}" for row in rows]
    for index, name in enumerate(names):
        widths = [row.stage_seconds.get(name, 0.0) / scale for row in rows]
        axes.barh(labels, widths, left=left, height=0.55, color=PALETTE[index % len(PALETTE)], label=stage_title(name))
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for label, end, row in zip(labels, left, rows, strict=True):
        axes.annotate(duration(row.seconds), (end, label), (6, 0), textcoords="offset points", va="center")
    axes.margins(x=0.2)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(5, len(names)), handlelength=1, columnspacing=1.2
    )
    return True


PLOTS: Sequence[tuple[str, str, str, Callable[[Report, Any], bool]]] = (
    (
        "heldout",
        "Held-out score",
        "Known score on held-out prompts. Filled: promoted; dashed: the base model.",
        heldout,
    ),
    ("reward", "Reward during policy training", "Mean over the samples of each step.", reward),
    ("kl", "KL to the reference", "Divergence of the policy from the reference.", kl),
    ("lengths", "Response length", "Mean tokens per response, including the end of sequence.", lengths),
    (
        "staleness",
        "Staleness",
        "Versions between the policy in training and the one that generated a sample's oldest token.",
        staleness,
    ),
    ("mismatch", "Engine against trainer", "KL from the policy that generated to the one that is trained.", mismatch),
    ("rm", "Reward-model accuracy", "On held-out preferences. Dashed: guessing.", rm_accuracy),
    ("rmsteps", "Reward-model training", "On the batch of each step.", reward_model),
    ("times", "Time per stage", "Wall-clock of each iteration.", stage_times),
)


def _curves(report: Report, axes: Any, stage: str, wanted: Sequence[tuple[str, tuple[str, ...]]]) -> bool:
    drawn = 0
    seen: list[list[tuple[int, float]]] = []
    for label, names in wanted:
        points = series.curve(report, stage, names)
        if points and not any(_same(points, other) for other in seen):
            seen.append(points)
            marker = "o" if len(points) < 2 else None
            axes.plot([x for x, _ in points], [y for _, y in points], color=PALETTE[drawn], label=label, marker=marker)
            drawn += 1
    if not drawn:
        return False
    starts = series.iteration_starts(report, stage)
    for number, start in starts.items():
        if len(starts) > 1:
            axes.axvline(start - 0.5, color=INK, alpha=0.25, linewidth=0.8)
            axes.annotate(
                f"iteration {number}", (start - 0.5, 1.0), (4, 1), xycoords=("data", "axes fraction"),
                textcoords="offset points", fontsize=8, alpha=0.7, va="bottom",
            )  # fmt: skip
    axes.set_xlabel("step")
    axes.margins(x=0.02)
    axes.locator_params(axis="x", integer=True)
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.8)
    if drawn > 1:
        axes.legend(loc="best")
    return True


def _same(points: Sequence[tuple[int, float]], other: Sequence[tuple[int, float]]) -> bool:
    """Whether two curves look the same: without a KL penalty, reward and score differ by rounding only."""
    return len(points) == len(other) and all(
        a[0] == b[0] and math.isclose(a[1], b[1], rel_tol=1e-3, abs_tol=1e-6)
        for a, b in zip(points, other, strict=True)
    )


def _iteration_ticks(axes: Any, rows: Sequence[Iteration]) -> None:
    axes.set_xticks([row.number for row in rows], ["base" if row.number == 0 else str(row.number) for row in rows])
    axes.set_xlabel("iteration")
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.8)
    axes.set_axisbelow(True)


def _svg(key: str, report: Report, draw: Callable[[Report, Any], bool]) -> str | None:
    # The salt makes ids, and therefore the file, reproducible.
    with mpl.rc_context(STYLE | {"svg.hashsalt": key}):
        figure = Figure(figsize=(5.6, 3.1), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        if not draw(report, axes):
            return None
        buffer = io.StringIO()
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(key, buffer.getvalue())


def _inline(key: str, document: str) -> str:
    """Only the <svg> element, sized by the page, with ids that are unique in the page."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{key}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{key}-", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font: (\d[\d.]*)px [^;\"]*", r"font-size: \1px", svg)
    return svg.replace(INK, "currentColor").strip()
