"""The ranks that train one model together. Algorithms see this and no torch.distributed.

Every rank holds the whole batch; the model's passes over it are divided. What each rank computed of its own rows is
added up (rows of others are 0, so the sum is a gather), and from then on all ranks compute the same figures on the same
numbers: whitening, advantages and losses are those of one rank by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from torch import Tensor

T = TypeVar("T")


class World(Protocol):
    """`size` ranks, this one being `rank`. Every rank makes the same calls in the same order."""

    rank: int
    size: int

    def mine(self, items: Sequence[T]) -> list[T]:
        """This rank's part of the items; the parts of all ranks are the items, each once."""
        ...

    def sum(self, tensor: Tensor) -> Tensor:
        """The element-wise sum over the ranks. May be `tensor` itself."""
        ...

    def max(self, value: float) -> float:
        """The largest value of any rank."""
        ...


class Alone:
    """One process, one model: the world of a trainer that was started without torchrun."""

    rank = 0
    size = 1

    def mine(self, items: Sequence[T]) -> list[T]:
        return list(items)

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor

    def max(self, value: float) -> float:
        return value
