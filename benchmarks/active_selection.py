"""Accuracy per label: comparisons chosen by an ensemble's disagreement or expected information gain, against random.

    python benchmarks/active_selection.py
    python benchmarks/active_selection.py --seeds 20 --json active.json

A simulated setup, cheap and with a known truth. Answers are vectors of `--dimensions` features whose scales fall off,
like those of embeddings, and which form clusters, like answers to similar prompts. An annotator prefers by a hidden
linear reward, with noise: P(a over b) = sigmoid((r(a) - r(b)) / noise). The reward model is an ensemble of
Bradley-Terry models, each fitted to a bootstrap of the labels so far. In each round `--batch` pairs of a pool are
labelled: at random, or those with the highest value by accord_controller.stages.active_selection (a run's
`feedback.selection`). Accuracy is that of the ensemble's mean on 4,000 random held-out pairs, against the truth without
noise.

It involves no text, language models or people. It shows only how many labels the acquisition functions save.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from accord_controller.stages.active_selection import ACQUISITIONS

Floats = npt.NDArray[np.float64]
SELECTIONS = ("random", *ACQUISITIONS)
HELDOUT = 4000


@dataclass(frozen=True)
class Setup:
    seeds: int
    dimensions: int
    pool: int
    batch: int
    rounds: int
    members: int
    noise: float


def draw_pairs(draw: np.random.Generator, count: int, setup: Setup) -> Floats:
    """Differences of the features of two answers, [count, dimensions]: most pairs are of one kind, some of others."""
    scales = np.arange(1, setup.dimensions + 1) ** -0.5
    centres = np.random.default_rng(7).normal(size=(8, setup.dimensions))
    kinds = draw.choice(8, count, p=np.array([64, 32, 16, 8, 4, 2, 1, 1]) / 128)
    return np.asarray(draw.normal(size=(count, setup.dimensions)) * scales * np.exp(0.6 * centres[kinds]))


def fit(differences: Floats, counts: Floats) -> Floats:
    """Bradley-Terry with linear rewards and a normal prior, by Newton's method, on chosen minus rejected."""
    weights = np.zeros(differences.shape[1])
    for _ in range(12):
        probability = 1 / (1 + np.exp(-np.clip(differences @ weights, -30, 30)))
        gradient = (counts * (1 - probability)) @ differences - weights
        curve = (differences * (counts * probability * (1 - probability))[:, None]).T @ differences
        weights = weights + np.linalg.solve(curve + np.eye(len(weights)), gradient)
    return weights


def run(selection: str, seed: int, setup: Setup) -> list[float]:
    """Held-out accuracy after each round."""
    draw = np.random.default_rng([seed, 1])
    truth = draw.normal(size=setup.dimensions)
    heldout, pool = draw_pairs(draw, HELDOUT, setup), draw_pairs(draw, setup.pool, setup)
    reward = pool @ truth
    flipped = draw.random(setup.pool) > 1 / (1 + np.exp(-np.clip(reward / (setup.noise * reward.std()), -30, 30)))
    labelled = np.where(flipped[:, None], -pool, pool)
    choosing = np.random.default_rng([seed, 2])
    left, taken = list(choosing.permutation(setup.pool)), []
    ensemble = np.zeros((setup.members, setup.dimensions))
    accuracy = []
    for number in range(setup.rounds):
        if number and selection != "random":
            scores = pool @ ensemble.T
            nothing = [0.0] * setup.members
            value = {place: ACQUISITIONS[selection](scores[place].tolist(), nothing) for place in left}
            left.sort(key=lambda place: -value[place])
        taken += left[: setup.batch]
        left = left[setup.batch :]
        differences = labelled[taken]
        resampled = choosing.poisson(1.0, (setup.members, len(taken))).astype(float)
        ensemble = np.stack([fit(differences, counts) for counts in resampled])
        accuracy.append(float((((heldout @ ensemble.mean(0)) > 0) == (heldout @ truth > 0)).mean()))
    return accuracy


def labels_to_reach(accuracy: Floats, wanted: float, batch: int) -> float | None:
    """Labels until the mean curve reaches `wanted`, interpolated linearly between rounds."""
    for place, value in enumerate(accuracy):
        if value >= wanted:
            if not place:
                return float(batch)
            before = accuracy[place - 1]
            return float(batch * (place + (wanted - before) / (value - before)))
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--dimensions", type=int, default=32)
    parser.add_argument("--pool", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--noise", type=float, default=0.2)
    parser.add_argument("--json", type=Path, default=None, help="also write everything as JSON to this file")
    arguments = vars(parser.parse_args())
    target = arguments.pop("json")
    setup = Setup(**arguments)
    began = time.perf_counter()
    curves = {name: np.array([run(name, seed, setup) for seed in range(setup.seeds)]) for name in SELECTIONS}
    means = {name: found.mean(0) for name, found in curves.items()}
    print(f"{'labels':>8}" + "".join(f"{name:>22}" for name in SELECTIONS))
    for number in range(setup.rounds):
        row = f"{(number + 1) * setup.batch:>8}"
        for name in SELECTIONS:
            spread = curves[name][:, number].std(ddof=1) / np.sqrt(setup.seeds) if setup.seeds > 1 else 0.0
            row += f"{means[name][number]:>14.3f} ± {spread:.3f}"
        print(row)
    best = float(means["random"][-1])
    reached = {name: labels_to_reach(means[name], best, setup.batch) for name in SELECTIONS}
    print(f"\nlabels until the accuracy that random has at {setup.rounds * setup.batch} ({best:.3f}):")
    for name, count in reached.items():
        print(f"  {name:<14}{'not reached' if count is None else f'{count:.0f}'}")
    gains = {}
    for name in ACQUISITIONS:
        differences = curves[name][:, 1:].mean(1) - curves["random"][:, 1:].mean(1)
        gains[name] = {"mean": float(differences.mean()), "seeds_better": int((differences > 0).sum())}
        print(
            f"{name}: {differences.mean():+.3f} accuracy over the rounds, better on {gains[name]['seeds_better']} of "
            f"{setup.seeds} seeds"
        )
    print(f"{time.perf_counter() - began:.1f} s")
    if target is not None:
        found = {
            "setup": asdict(setup),
            "labels": [(number + 1) * setup.batch for number in range(setup.rounds)],
            "accuracy": {name: curves[name].tolist() for name in SELECTIONS},
            "labels_to_reach_random": reached,
            "gains": gains,
        }
        target.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
