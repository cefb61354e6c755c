"""Running means and maxima of a step's figures."""

from __future__ import annotations


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

    def result(self) -> dict[str, float]:
        """Means and maxima by name."""
        return {name: total / count for name, (total, count) in self._sums.items() if count} | self._largest
