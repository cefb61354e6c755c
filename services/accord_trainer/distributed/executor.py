"""The seam between a training and the ranks that compute it: every rank runs each command that rank 0 runs.

The driver is the executor of rank 0 (driver.py); on the other ranks a worker runs the commands it receives
(trainings/rank_worker.py) and answers each with a result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import grpc

from accord.errors import BY_CODE, AccordError, Internal

T = TypeVar("T")
CommandKind = Literal["load", "step", "evaluate", "publish", "checkpoint", "unload", "discard", "shutdown"]


@dataclass(frozen=True)
class Command:
    """A method of LoadedTraining to run on every rank, or the beginning or end of a training. Travels as bytes."""

    kind: CommandKind
    training_id: str = ""
    # JSON values.
    fields: dict[str, Any] = field(default_factory=dict)
    # Serialised protobuf messages.
    messages: tuple[bytes, ...] = ()

    def to_bytes(self) -> bytes:
        """The inverse of `from_bytes`."""
        sizes = [len(message) for message in self.messages]
        head = json.dumps([self.kind, self.training_id, self.fields, sizes]).encode()
        return b"".join([len(head).to_bytes(8, "little"), head, *self.messages])

    @classmethod
    def from_bytes(cls, data: bytes) -> Command:
        """The command that rank 0 sent."""
        at = 8 + int.from_bytes(data[:8], "little")
        kind, training_id, fields, sizes = json.loads(data[8:at])
        messages: list[bytes] = []
        for size in sizes:
            messages.append(data[at : at + size])
            at += size
        return cls(kind, training_id, fields, tuple(messages))


@dataclass(frozen=True)
class RankResult:
    """The result of a command on one rank. `code` is empty on success; `check` must then be equal on all ranks."""

    check: str = ""
    code: str = ""
    reason: str = ""
    message: str = ""

    @classmethod
    def of(cls, error: BaseException) -> RankResult:
        """A command that failed."""
        if isinstance(error, AccordError):
            return cls(code=error.code.name, reason=error.reason, message=error.message)
        return cls(code=Internal.code.name, reason=type(error).__name__, message=str(error))

    def to_bytes(self) -> bytes:
        """The inverse of `from_bytes`."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> RankResult:
        """The result that another rank sent."""
        return cls(**json.loads(data))

    def error(self) -> AccordError:
        """The other rank's error, to raise on this rank."""
        return BY_CODE[grpc.StatusCode[self.code]](self.message, reason=self.reason)


def differences(results: Sequence[RankResult]) -> str:
    """Empty if the results of all ranks agree; otherwise the result of each rank. A rank that failed only because
    another rank failed (OTHER_RANK) agrees with that rank."""
    distinct = {(result.check, result.code, result.reason) for result in results if result.reason != "OTHER_RANK"}
    failed = [bool(result.code) for result in results]
    if all(failed) == any(failed) and len(distinct) <= 1:
        return ""
    return "; ".join(
        f"rank {rank}: {result.reason + ' ' + result.message if result.code else 'done ' + result.check[:12]}"
        for rank, result in enumerate(results)
    )


class Executor(Protocol):
    """Runs a training's commands on all ranks."""

    def run(self, command: Command, work: Callable[[], T], check: Callable[[T], str] = ...) -> T:
        """The result of `work` on this rank, while every other rank runs `command`. `check` turns a result into the
        string that must be equal on all ranks.

        Unavailable, RANK_LOST, if a rank died, does not answer, or returned a different result."""
        ...


class InProcessExecutor:
    """Runs only on this process: for a single rank, and inside the worker of a rank other than 0."""

    def run(self, command: Command, work: Callable[[], T], check: Callable[[T], str] = lambda _: "") -> T:
        return work()
