"""Passes through the model divided over the ranks, equally many on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from accord_trainer.distributed.world import World

T = TypeVar("T")


@dataclass(frozen=True)
class Round(Generic[T]):
    """A group that goes through the model together; where it does not count it only keeps the ranks in step."""

    items: list[T]
    counts: bool


def rounds(groups: Sequence[list[T]], world: World) -> list[Round[T]]:
    """This rank's groups, filled up so that every rank passes through the model equally often: sharded weights are
    gathered by all ranks together in each pass."""
    own = [Round(group, True) for group in world.mine(groups)]
    most = int(world.max(len(own)))
    return [*own, *([Round(groups[0][:1], False)] * (most - len(own)))]
