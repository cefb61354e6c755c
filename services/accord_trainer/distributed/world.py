"""The ranks that train one model together. Algorithms use this interface and never torch.distributed.

Every rank holds the whole batch; the passes through the model are divided among the ranks. The results of each rank's
rows are added up (the rows of other ranks are 0, so the sum is a gather), and from there all ranks compute the same
figures from the same numbers: by construction, whitening, advantages and losses equal those of one rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn
from torch.nn import Parameter

from accord.errors import Aborted

T = TypeVar("T")


class Passes(Protocol):
    """Runs a computation that needs the whole weights of some modules; its result must consist of tensors (in lists,
    dataclasses).

    Weights that are sharded over the ranks are gathered for the computation and again for its backward pass; every rank
    must run it equally often.
    """

    def __call__(self, compute: Callable[[], T]) -> T: ...


class World(Protocol):
    """`size` ranks, this one being `rank`. Every rank makes the same calls in the same order."""

    rank: int
    size: int
    # Whether `place` shards weights.
    sharded: bool

    def mine(self, items: Sequence[T]) -> list[T]:
        """This rank's part of the items; each item is in the part of exactly one rank."""
        ...

    def sum(self, tensor: Tensor) -> Tensor:
        """The element-wise sum over the ranks. May be `tensor` itself."""
        ...

    def max(self, value: float) -> float:
        """The largest value of any rank."""
        ...

    def broadcast(self, data: bytes) -> bytes:
        """Rank 0's `data`, on every rank; what other ranks pass is ignored."""
        ...

    def place(self, modules: Iterable[nn.Module], compute_dtype: str, blocks: Iterable[nn.Module] = ()) -> Passes:
        """Shards the modules' weights over the ranks, if this world does so, and returns what their passes run in.
        `blocks` are the modules' transformer blocks, each gathered when it runs; the rest is gathered for a whole pass.

        Call it before an optimizer takes the parameters, and after the weights were last compared or read."""
        ...

    def add_gradients(self, parameters: Iterable[Parameter]) -> None:
        """Makes each gradient the sum over the ranks; a missing gradient counts as 0."""
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

    def broadcast(self, data: bytes) -> bytes:
        return data

    def place(self, modules: Iterable[nn.Module], compute_dtype: str, blocks: Iterable[nn.Module] = ()) -> Passes:
        return unsharded

    def add_gradients(self, parameters: Iterable[Parameter]) -> None:
        """Does nothing: the gradients are complete."""


def unsharded(compute: Callable[[], T]) -> T:
    """Passes of modules whose weights are whole on every rank."""
    return compute()


def passing(name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """A decorator that runs a method in the Passes stored on `self` under `name`."""

    def decorate(method: Callable[..., T]) -> Callable[..., T]:
        def inside(self: Any, *arguments: Any, **keywords: Any) -> T:
            passes: Passes = getattr(self, name)
            return passes(lambda: method(self, *arguments, **keywords))

        inside.__doc__ = method.__doc__
        inside.__name__ = method.__name__
        return inside

    return decorate


@dataclass(frozen=True)
class Round(Generic[T]):
    """A group that shares a pass through the model. If `counts` is false, it only keeps the ranks in lockstep."""

    items: list[T]
    counts: bool


def even_rounds(groups: Sequence[list[T]], world: World) -> list[Round[T]]:
    """This rank's groups, padded so that every rank passes through the model equally often: all ranks gather sharded
    weights together in each pass."""
    own = [Round(group, True) for group in world.mine(groups)]
    most = int(world.max(len(own)))
    return [*own, *([Round(groups[0][:1], False)] * (most - len(own)))]


@contextmanager
def all_or_none(world: World) -> Iterator[None]:
    """Fails on every rank if the block fails on one: Aborted, OTHER_RANK, on the ranks where it succeeded."""
    try:
        yield
    except Exception:
        world.max(1.0)
        raise
    if world.max(0.0):
        raise Aborted("this operation failed on another rank; see that rank's error", reason="OTHER_RANK")


def leads(world: World) -> bool:
    """Whether this rank writes the files that exist once per world."""
    return world.rank == 0
