"""The seam between a training and the ranks that compute it: what rank 0 is asked to do, all ranks do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from accord.trainer import v1 as trainer_v1
from accord_trainer.algorithm import Experience

T = TypeVar("T")
Kind = Literal["open", "step", "evaluate", "publish", "checkpoint", "retire", "forget", "end"]


@dataclass(frozen=True)
class Command:
    """A piece of work on a training: a method of LoadedTraining, or its beginning or end. Travels as bytes."""

    kind: Kind
    training_id: str = ""
    # What JSON can hold.
    fields: dict[str, Any] = field(default_factory=dict)
    # Serialised protobuf messages.
    messages: tuple[bytes, ...] = ()

    def to_bytes(self) -> bytes:
        """What `from_bytes` reads."""
        sizes = [len(message) for message in self.messages]
        head = json.dumps([self.kind, self.training_id, self.fields, sizes]).encode()
        return b"".join([len(head).to_bytes(8, "little"), head, *self.messages])

    @classmethod
    def from_bytes(cls, data: bytes) -> Command:
        """The order that rank 0 gave."""
        at = 8 + int.from_bytes(data[:8], "little")
        kind, training_id, fields, sizes = json.loads(data[8:at])
        messages: list[bytes] = []
        for size in sizes:
            messages.append(data[at : at + size])
            at += size
        return cls(kind, training_id, fields, tuple(messages))


class Executor(Protocol):
    """Whoever works on a training with this process."""

    def together(self, order: Command, work: Callable[[], T], check: Callable[[T], str] = ...) -> T:
        """The result of `work`, done by all ranks. `check` makes of it what must be equal on all of them.

        Unavailable, RANK_LOST, where a rank died, hangs, or came to another end than this one."""
        ...


class InProcessExecutor:
    """Nobody else; also what a rank is that only follows."""

    def together(self, order: Command, work: Callable[[], T], check: Callable[[T], str] = lambda _: "") -> T:
        return work()


def batch_of(data: bytes) -> Experience:
    """The batch in a serialised chunk."""
    chunk = trainer_v1.ExperienceChunk.FromString(data)
    return Experience(list(chunk.samples), list(chunk.preferences))


def batch_message(batch: Experience) -> bytes:
    """What `batch_of` reads."""
    return trainer_v1.ExperienceChunk(samples=batch.samples, preferences=batch.preferences).SerializeToString()
