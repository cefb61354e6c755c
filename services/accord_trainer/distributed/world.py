"""The ranks that train one model together. Algorithms see this and no torch.distributed.

Every rank holds the whole batch; the model's passes over it are divided. What each rank computed of its own rows is
added up (rows of others are 0, so the sum is a gather), and from then on all ranks compute the same figures on the same
numbers: whitening, advantages and losses are those of one rank by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn
from torch.nn import Parameter

from accord.errors import Aborted

T = TypeVar("T")


class Passes(Protocol):
    """Runs what needs the whole weights of some modules; what it gives must be made of tensors (lists, dataclasses).

    Modules whose weights lie spread over the ranks are put together for as long as it runs, and again for the backward
    pass; every rank must run it equally often.
    """

    def __call__(self, compute: Callable[[], T]) -> T: ...


class World(Protocol):
    """`size` ranks, this one being `rank`. Every rank makes the same calls in the same order."""

    rank: int
    size: int
    # Whether `place` spreads weights.
    sharded: bool

    def mine(self, items: Sequence[T]) -> list[T]:
        """This rank's part of the items; the parts of all ranks are the items, each once."""
        ...

    def sum(self, tensor: Tensor) -> Tensor:
        """The element-wise sum over the ranks. May be `tensor` itself."""
        ...

    def max(self, value: float) -> float:
        """The largest value of any rank."""
        ...

    def place(self, modules: Iterable[nn.Module], compute_dtype: str) -> Passes:
        """Spreads the modules' weights over the ranks, where this world does so, and gives what their passes run in.

        Comes before an optimizer takes the parameters, and after they were compared or looked into."""
        ...

    def add_gradients(self, parameters: Iterable[Parameter]) -> None:
        """Makes each gradient the sum over the ranks; a rank without one counts as 0."""
        ...


class Alone:
    """One process, one model: the world of a trainer that was started without torchrun."""

    rank = 0
    size = 1
    sharded = False

    def mine(self, items: Sequence[T]) -> list[T]:
        return list(items)

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor

    def max(self, value: float) -> float:
        return value

    def place(self, modules: Iterable[nn.Module], compute_dtype: str) -> Passes:
        return straight

    def add_gradients(self, parameters: Iterable[Parameter]) -> None:
        """They are whole."""


def straight(compute: Callable[[], T]) -> T:
    """Passes of modules whose weights are whole on every rank."""
    return compute()


@contextmanager
def all_or_none(world: World) -> Iterator[None]:
    """Fails on every rank where the block failed on one. Aborted, OTHER_RANK, on those that did their part."""
    try:
        yield
    except Exception:
        world.max(1.0)
        raise
    if world.max(0.0):
        raise Aborted("another rank could not do its part; its own error says why", reason="OTHER_RANK")


def leads(world: World) -> bool:
    """Whether this rank writes what is written once."""
    return world.rank == 0


def passing(name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Makes a method run in the Passes that `self` keeps under `name`."""

    def decorate(method: Callable[..., T]) -> Callable[..., T]:
        def inside(self: Any, *arguments: Any, **keywords: Any) -> T:
            passes: Passes = getattr(self, name)
            return passes(lambda: method(self, *arguments, **keywords))

        inside.__doc__ = method.__doc__
        inside.__name__ = method.__name__
        return inside

    return decorate
