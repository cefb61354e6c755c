"""The progress of a run, from its events alone: pure state, rendered live in a terminal or as plain lines."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from accord.names import stage_name, stage_title
from accord.report.series import KL_CURVES, REWARD_CURVES
from accord.report.text import NOT_MEASURED, duration, number

if TYPE_CHECKING:
    from rich.console import RenderableType

    from accord.controller import v1 as controller_v1

SPARKS = "▁▂▃▄▅▆▇█"
# Events that leave a line on the screen; `step` only updates the display.
LABELS = {
    "stage_started": "started",
    "stage_finished": "finished",
    "iteration_finished": "iteration finished",
    "replayed": "replayed from the ledger",
    "service_restarted": "a service was restarted",
    "retry": "retrying",
    "weights_fallback": "weights from another source",
    "left_out": "left out",
    "waiting": "waiting",
    "failed": "FAILED",
    "paused": "paused",
    "resumed": "resumed",
    "cancelled": "cancelled",
    "succeeded": "succeeded",
}


@dataclass
class Progress:
    """The state of a run. `apply` events in order; times are those of the events, in seconds."""

    run_id: str
    iterations: int = 1
    simulated: bool = False
    iteration: int = 0
    stage: str = ""
    step: int = 0
    total_steps: int = 0
    message: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    rewards: deque[float] = field(default_factory=lambda: deque(maxlen=40))
    sequence: int = 0
    _first_step: tuple[int, float] | None = None
    _last_step: tuple[int, float] | None = None

    def apply(self, event: controller_v1.RunEvent) -> None:
        """Applies one event; events seen before are ignored."""
        if event.sequence <= self.sequence:
            return
        self.sequence = event.sequence
        stage = stage_name(event.stage)
        if (event.iteration, stage) != (self.iteration, self.stage):
            self.iteration, self.stage = event.iteration, stage
            self.step, self.total_steps = 0, 0
            self.metrics, self._first_step, self._last_step = {}, None, None
            self.rewards.clear()
        self.total_steps = event.total_steps or self.total_steps
        self.message = event.message
        if event.step:
            self._count(event)
        if event.metrics:
            self.metrics.update(event.metrics)
            reward = self.first(REWARD_CURVES[0][1])
            if event.kind == "step" and reward is not None:
                self.rewards.append(reward)

    def _count(self, event: controller_v1.RunEvent) -> None:
        self.step = event.step
        at = (event.step, event.time.seconds + event.time.nanos / 1e9)
        if self._first_step is None:
            self._first_step = at
        self._last_step = at

    def first(self, names: tuple[str, ...]) -> float | None:
        """The first of these metrics that the stage has reported."""
        return next((self.metrics[name] for name in names if name in self.metrics), None)

    def eta_seconds(self) -> float | None:
        """Seconds until the stage ends: as reported, else from the pace of the steps; None if unknown."""
        if "eta_seconds" in self.metrics:
            return self.metrics["eta_seconds"]
        first, last = self._first_step, self._last_step
        if first is None or last is None or last[0] <= first[0] or not self.total_steps:
            return None
        return (self.total_steps - last[0]) * (last[1] - first[1]) / (last[0] - first[0])

    def figures(self) -> list[tuple[str, str]]:
        """`(name, value)` of the current figures: reward, KL, samples per second, ETA, or loss and accuracy."""
        if self.stage == "reward_model":
            shown = [(name, number(self.metrics.get(name))) for name in ("accuracy", "loss")]
        else:
            kl = self.first(KL_CURVES[0][1])
            reward = self.first(REWARD_CURVES[0][1] + REWARD_CURVES[1][1])
            shown = [("reward", number(reward)), ("KL", NOT_MEASURED if kl is None else f"{number(kl, 2)} nats")]
        shown.append(("samples/s", number(self.metrics.get("samples_per_second"), 1)))
        if not self.total_steps or self.step < self.total_steps:
            shown.append(("ETA", duration(self.eta_seconds())))
        return [(name, value) for name, value in shown if value != NOT_MEASURED]

    def where(self) -> str:
        """`iteration 1/2 · policy 5/12`."""
        parts = [f"iteration {self.iteration}/{self.iterations}" if self.iteration else "base model"]
        if self.stage:
            count = (
                f" {self.step}/{self.total_steps}" if self.total_steps else f" step {self.step}" if self.step else ""
            )
            parts.append(f"{stage_title(self.stage)}{count}")
        return " · ".join(parts)

    def line(self) -> str:
        """One plain line for logs and pipes."""
        return "  ".join([f"{self.run_id}: {self.where()}", *(f"{name} {value}" for name, value in self.figures())])


def describe(event: controller_v1.RunEvent) -> str | None:
    """The line that an event leaves on the screen; None if it only updates the display."""
    if event.kind == "step" or event.kind not in LABELS:
        return None if event.kind == "step" else event.message or event.kind
    name = stage_name(event.stage)
    stage = stage_title(name)
    subject = f"iteration {event.iteration} · {stage}" if event.iteration and stage else stage or "run"
    word = LABELS[event.kind]
    if event.message in ("", name, stage):
        return f"{subject}: {word}"
    return f"{subject}: {event.message}" if event.message.startswith(word) else f"{subject}: {word} – {event.message}"


def render(progress: Progress) -> RenderableType:
    """The live display, three lines."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble((progress.run_id, "bold"), "  ", progress.where())
    if progress.simulated:
        head.append("  SIMULATED ANNOTATORS", style="yellow")
    bar = Table.grid(padding=(0, 1))
    total = progress.total_steps or None
    bar.add_row(
        ProgressBar(total=total, completed=progress.step, width=40, pulse=total is None), spark(progress.rewards)
    )
    figures = Text("   ").join(
        Text.assemble((f"{name} ", "dim"), (value, "bold")) for name, value in progress.figures()
    )
    return Group(head, bar, figures if progress.figures() else Text(progress.message, style="dim"))


def spark(values: deque[float]) -> str:
    """The reward over time as small bars, lowest to highest; empty below two values."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    if high <= low:
        return SPARKS[0] * len(values)
    return "".join(SPARKS[round((value - low) / (high - low) * (len(SPARKS) - 1))] for value in values)
