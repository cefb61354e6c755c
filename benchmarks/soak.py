"""Whether memory and time per step stay flat: many steps of a tiny model through the services."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from accord_side import Loop, Setup, policy_options, services
from costs import cpu_seconds
from rich.table import Table
from workload import Workload

MIB = 2**20


@dataclass(frozen=True)
class Look:
    """After one step: wall-clock seconds, CPU-seconds, and resident bytes of each service."""

    seconds: float
    cpu: float
    rss: dict[str, int]


def make_tiny(folder: Path, like: Path) -> Path:
    """A random model of 2 layers with the tokenizer of `like`, so that the cost of a step is almost only overhead."""
    import torch
    from transformers import AutoModelForCausalLM

    from accord_models.loading import load_config
    from accord_models.publishing import save_model
    from accord_models.tokenizer import load_tokenizer

    config = load_config(like)
    for name, value in {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "layer_types": None,
    }.items():  # fmt: skip
        if hasattr(config, name):
            setattr(config, name, value)
    torch.manual_seed(0)
    save_model(AutoModelForCausalLM.from_config(config), load_tokenizer(like), folder, "float32")
    return folder


async def run_soak(workload: Workload, state: Path, report: Callable[[int, Look], None]) -> list[Look]:
    """PPO steps; one Look each."""
    looks: list[Look] = []
    async with services(state, dtype="float32") as up:
        loop = Loop(
            up, workload, "ppo", "float32", policy_options(workload, Setup("float32", compile=False, undo="memory"))
        )
        await loop.open()
        for index, prompts in enumerate(workload.step_prompts()):
            started, used = time.monotonic(), cpu_seconds(list(up.processes.values()))
            await loop.step(index, prompts, split=False)
            looks.append(
                Look(
                    time.monotonic() - started,
                    cpu_seconds(list(up.processes.values())) - used,
                    {name: _rss(process) for name, process in up.processes.items()},
                )
            )
            report(index, looks[-1])
    return looks


def summary(looks: Sequence[Look]) -> dict[str, dict[str, float]]:
    """Of each figure: the median of the first and the last tenth, their ratio, and the slope a step, by least squares
    over all but the first tenth (which fills caches)."""
    tenth = max(1, len(looks) // 10)
    figures = {
        "seconds a step": [look.seconds for look in looks],
        "CPU-seconds a step": [look.cpu for look in looks],
        **{f"{name} MiB": [look.rss[name] / MIB for look in looks] for name in looks[0].rss},
    }
    return {
        name: {
            "first": statistics.median(values[:tenth]),
            "last": statistics.median(values[-tenth:]),
            "ratio": statistics.median(values[-tenth:]) / max(statistics.median(values[:tenth]), 1e-9),
            "slope": _slope(values[tenth:]),
        }
        for name, values in figures.items()
    }


def soak_table(looks: Sequence[Look]) -> Table:
    """`summary` as a table, with the course of each figure in ten points."""
    tenth = max(1, len(looks) // 10)
    table = Table(
        "figure", f"first {tenth}", f"last {tenth}", "ratio", "slope/1,000 steps", "course (medians of tenths)"
    )
    for name, row in summary(looks).items():
        values = _values(looks, name)
        way = [statistics.median(values[at : at + tenth]) for at in range(0, len(values), tenth)]
        points = " ".join(f"{point:.3g}" for point in way)
        table.add_row(
            name,
            f"{row['first']:.3f}",
            f"{row['last']:.3f}",
            f"{row['ratio']:.3f}",
            f"{row['slope'] * 1000:+.3f}",
            points,
        )
    return table


def as_dict(looks: Sequence[Look]) -> dict[str, Any]:
    """For JSON: the summary and every step."""
    return {"summary": summary(looks), "steps": [asdict(look) for look in looks]}


def _values(looks: Sequence[Look], name: str) -> list[float]:
    if name == "seconds a step":
        return [look.seconds for look in looks]
    if name == "CPU-seconds a step":
        return [look.cpu for look in looks]
    return [look.rss[name.removesuffix(" MiB")] / MIB for look in looks]


def _slope(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    return statistics.linear_regression(range(len(values)), values).slope


def _rss(process: psutil.Process) -> int:
    return int(process.memory_info().rss)
