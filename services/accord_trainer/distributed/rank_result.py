"""How a piece of work ended on a rank, for the others to hear."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import grpc

from accord.errors import BY_CODE, AccordError, Internal


@dataclass(frozen=True)
class Outcome:
    """`code` is empty where all went well; `check` is what must be equal on all ranks then."""

    check: str = ""
    code: str = ""
    reason: str = ""
    message: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Outcome:
        """The end by an error."""
        if isinstance(error, AccordError):
            return cls(code=error.code.name, reason=error.reason, message=error.message)
        return cls(code=Internal.code.name, reason=type(error).__name__, message=str(error))

    def to_bytes(self) -> bytes:
        """What `from_bytes` reads."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Outcome:
        """What another rank said."""
        return cls(**json.loads(data))

    def error(self) -> AccordError:
        """The error of the other rank, as ours."""
        return BY_CODE[grpc.StatusCode[self.code]](self.message, reason=self.reason)


def explain(outcomes: list[Outcome]) -> str:
    """Empty where all ranks came to the same end; else what each said. That another rank failed is no end of its
    own."""
    ends = {(outcome.check, outcome.code, outcome.reason) for outcome in outcomes if outcome.reason != "OTHER_RANK"}
    failed = [bool(outcome.code) for outcome in outcomes]
    if all(failed) == any(failed) and len(ends) <= 1:
        return ""
    return "; ".join(
        f"rank {rank}: {outcome.reason + ' ' + outcome.message if outcome.code else 'done ' + outcome.check[:12]}"
        for rank, outcome in enumerate(outcomes)
    )
