"""Every random choice of a run depends on its seed and on the purpose of the choice, not on time or place."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import TypeVar

T = TypeVar("T")


def seed_for(seed: int, *parts: object) -> int:
    """A seed (uint64) for one purpose: SHA-256 of the run's seed and the parts that name the purpose."""
    text = "\x1f".join(map(str, (seed, *parts)))
    return int.from_bytes(sha256(text.encode()).digest()[:8], "little")


def generator(seed: int, *parts: object) -> random.Random:
    """A generator for one purpose."""
    return random.Random(seed_for(seed, *parts))


def shuffled(items: Iterable[T], name: Callable[[T], str], seed: int, *parts: object) -> list[T]:
    """`items` in an order that depends on the seed, the parts and each item's name, not on the input order."""
    return sorted(items, key=lambda item: (seed_for(seed, *parts, name(item)), name(item)))


def turn(items: Sequence[T], name: Callable[[T], str], count: int, number: int, seed: int, *parts: object) -> list[T]:
    """Turn `number` (from 0) of `count` items each: every item comes up once, in shuffled order, before any repeats."""
    orders: dict[int, list[T]] = {}
    chosen = []
    for position in range(number * count, (number + 1) * count):
        epoch, index = divmod(position, len(items))
        if epoch not in orders:
            orders[epoch] = shuffled(items, name, seed, *parts, epoch)
        chosen.append(orders[epoch][index])
    return chosen
