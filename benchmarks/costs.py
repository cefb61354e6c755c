"""The cost of one side: CPU-seconds by phase, peak memory, scores; and the tables that compare two sides."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil
from rich.table import Table

PHASES = ("generation", "scoring", "update")
GIB = 2**30


@dataclass(frozen=True)
class StepCost:
    """CPU-seconds of one step by phase, wall-clock seconds, and the mean score of its samples (a reward model: the
    accuracy on its pairs)."""

    generation: float
    scoring: float
    update: float
    seconds: float
    score: float

    @property
    def total(self) -> float:
        """CPU-seconds."""
        return self.generation + self.scoring + self.update


@dataclass
class Side:
    """One side's run: `warm` first steps do not count."""

    name: str
    warm: int
    steps: list[StepCost] = field(default_factory=list)
    peak_bytes: int = 0
    # Of the training process only, if there are other processes.
    trainer_peak_bytes: int = 0

    def cost(self, phase: str) -> float:
        """The median of the counted steps, CPU-seconds."""
        return statistics.median(getattr(step, phase) for step in self.counted)

    @property
    def counted(self) -> list[StepCost]:
        """All but the first `warm`."""
        return self.steps[self.warm :]

    @property
    def late_score(self) -> float:
        """The mean over the last third of the steps."""
        return statistics.fmean(step.score for step in self.steps[-max(1, len(self.steps) // 3) :])

    def as_dict(self) -> dict[str, Any]:
        """For JSON: every step, and the medians."""
        return {
            "warm": self.warm,
            "steps": [asdict(step) for step in self.steps],
            "cpu_seconds_a_step": {phase: self.cost(phase) for phase in (*PHASES, "total")},
            "peak_memory_bytes": self.peak_bytes,
            "trainer_peak_memory_bytes": self.trainer_peak_bytes,
            "mean_score": statistics.fmean(step.score for step in self.steps),
            "late_score": self.late_score,
        }


def ratios(accord: Side, peer: Side) -> dict[str, float]:
    """The peer's cost relative to Accord's; above 1 Accord is cheaper."""
    found = {phase: peer.cost(phase) / accord.cost(phase) for phase in (*PHASES, "total") if accord.cost(phase) > 0}
    found["peak_memory"] = peer.peak_bytes / max(accord.peak_bytes, 1)
    return found


def cost_table(title: str, accord: Side, peers: Sequence[Side]) -> Table:
    """CPU-seconds a step by phase, peak memory, and the peers' multiples of Accord."""
    table = Table(
        "side", *PHASES, "total", "peak GiB (trainer)", "seconds", title=f"{title}: CPU-seconds a step (median)"
    )
    for side in (accord, *peers):
        table.add_row(
            side.name,
            *(f"{side.cost(phase):.1f}" for phase in (*PHASES, "total")),
            f"{side.peak_bytes / GIB:.2f}"
            + (f" ({side.trainer_peak_bytes / GIB:.2f})" if side.trainer_peak_bytes else ""),
            f"{statistics.median(step.seconds for step in side.counted):.1f}",
        )
    for peer in peers:
        found = ratios(accord, peer)
        cells = (f"{found[key]:.1f}x" if key in found else "" for key in (*PHASES, "total", "peak_memory"))
        table.add_row(f"{peer.name} / Accord", *cells, "")
    return table


def curve_table(title: str, sides: Sequence[Side]) -> Table:
    """The score of each step, and the mean over the last third."""
    table = Table("step", *(side.name for side in sides), title=f"{title}: mean score of a step's samples")
    for index in range(max(len(side.steps) for side in sides)):
        cells = (f"{side.steps[index].score:.3f}" if index < len(side.steps) else "" for side in sides)
        table.add_row(str(index + 1), *cells)
    table.add_row("last third", *(f"{side.late_score:.3f}" for side in sides))
    return table


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """CPU-seconds of the processes and their ended children so far."""
    times = [process.cpu_times() for process in processes]
    return sum(t.user + t.system + t.children_user + t.children_system for t in times)


def memory(processes: Sequence[psutil.Process]) -> int:
    """Bytes in memory: proportional shares where the system knows them, so that libraries that several processes map
    count once; elsewhere resident sets. Ended processes count nothing."""
    total = 0
    for process in processes:
        try:
            info = process.memory_full_info()
            total += getattr(info, "pss", 0) or info.rss
        except psutil.Error:
            continue
    return total


class Peak:
    """The peak memory of processes and their children together, sampled every `interval` seconds.

    Proportional shares take long to count, so they are counted only when the resident sets have grown.
    """

    def __init__(self, processes: Callable[[], Sequence[psutil.Process]], interval: float = 0.5) -> None:
        self.bytes = 0
        self._resident = 0
        self._processes = processes
        self._interval = interval
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._interval):
            running = with_children(self._processes())
            resident = sum(_resident(process) for process in running)
            if resident > 1.02 * self._resident:
                self._resident = resident
                self.bytes = max(self.bytes, memory(running))


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def with_children(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """The processes and everything below them that still runs."""
    found: list[psutil.Process] = []
    for process in processes:
        try:
            found += [process, *process.children(recursive=True)]
        except psutil.Error:
            continue
    return found
