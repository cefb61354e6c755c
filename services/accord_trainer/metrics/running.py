"""Running means and maxima of a step's figures."""

from __future__ import annotations

import torch

from accord_trainer.distributed.world import World


class Means:
    """Sums with counts, and maxima; a name that was never given is not in the result."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}
        self._largest: dict[str, float] = {}

    def add(self, name: str, total: float, count: float) -> None:
        """`total` is the sum over `count` entries."""
        before, seen = self._sums.get(name, (0.0, 0.0))
        self._sums[name] = (before + total, seen + count)

    def largest(self, name: str, value: float) -> None:
        """Keeps the largest value under `name`."""
        self._largest[name] = max(value, self._largest.get(name, value))

    def result(self, world: World) -> dict[str, float]:
        """Means and maxima by name, over all ranks; each of them has the same names."""
        names = sorted(self._sums)
        sums = world.sum(torch.tensor([self._sums[name] for name in names], dtype=torch.float64).reshape(-1, 2))
        means = {name: float(total / count) for name, (total, count) in zip(names, sums, strict=True) if count}
        return means | {name: world.max(self._largest[name]) for name in sorted(self._largest)}
