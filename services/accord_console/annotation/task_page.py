"""A leased task as a page, and the signed slip that its form sends back.

The slip records the lease that the page showed and the order of the answers. The console can therefore read a form
without another call, a second click repeats the same call, and annotators can answer only tasks that they were given.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from itsdangerous import BadData, URLSafeSerializer

from accord.errors import FailedPrecondition
from accord.preference import v1 as preference_v1

KINDS = {
    preference_v1.TASK_KIND_COMPARISON: "comparison",
    preference_v1.TASK_KIND_RANKING: "ranking",
    preference_v1.TASK_KIND_RATING: "rating",
}
# A scale with more steps than this needs a typed number.
MOST_BUTTONS = 10


@dataclass(frozen=True)
class Criterion:
    """A criterion by which every answer is rated; `low` to `high` is its scale, `number` its index in the criteria."""

    number: int
    name: str
    description: str
    low: float
    high: float

    @property
    def steps(self) -> list[int]:
        """The whole numbers of a scale that buttons can show; empty if a number must be typed."""
        whole = self.low.is_integer() and self.high.is_integer() and self.high - self.low <= MOST_BUTTONS
        return list(range(int(self.low), int(self.high) + 1)) if whole else []


@dataclass(frozen=True)
class Slip:
    """The task of a form. `shown`: completion ids in the order of the page; `criteria`: name, low, high."""

    invite_id: str
    lease_id: str
    task_id: str
    prompt_id: str
    kind: str
    shown: Sequence[str]
    criteria: Sequence[tuple[str, float, float]] = ()


@dataclass(frozen=True)
class TaskPage:
    """A leased task. `shown`: its completions in the order of the page."""

    lease: preference_v1.TaskLease
    shown: Sequence[preference_v1.Completion]

    @property
    def kind(self) -> str:
        """`comparison`, `ranking` or `rating`."""
        return KINDS[preference_v1.TaskKind.ValueType(self.lease.task.kind)]

    @property
    def seconds_left(self) -> float:
        """Seconds until the lease ends, by the service's clock; the page counts down from there."""
        return max(0.0, self.lease.remaining.seconds + self.lease.remaining.nanos / 1e9)

    @property
    def criteria(self) -> list[Criterion]:
        """The criteria by which every answer is rated, in addition to the judgement."""
        return [
            Criterion(
                number,
                found.name,
                found.description,
                found.min if found.HasField("min") else 1.0,
                found.max if found.HasField("max") else 5.0,
            )
            for number, found in enumerate(self.lease.task.criteria)
        ]

    def slip(self, invite_id: str) -> Slip:
        """The slip that the page's form sends back."""
        task = self.lease.task
        return Slip(
            invite_id,
            self.lease.lease_id,
            task.task_id,
            task.prompt_id,
            self.kind,
            [completion.completion_id for completion in self.shown],
            [(criterion.name, criterion.low, criterion.high) for criterion in self.criteria],
        )


class TaskPages:
    """Creates task pages with the answers in blind order, and signs and reads their slips."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._slips = URLSafeSerializer(secret, salt="accord.slip.v1")

    def page_of(self, lease: preference_v1.TaskLease) -> TaskPage:
        """The page of a lease. Only the lease decides the order of the completions: it is the same at every reload, but
        differs between people, and between two leases of one person."""

        def place(completion: preference_v1.Completion) -> bytes:
            name = f"{lease.lease_id}\n{completion.completion_id}".encode()
            return hmac.new(self._secret, name, hashlib.sha256).digest()

        return TaskPage(lease, sorted(lease.completions, key=place))

    def write(self, page: TaskPage, invite_id: str) -> str:
        """The signed slip of a page."""
        return str(self._slips.dumps(asdict(page.slip(invite_id))))

    def read(self, slip: str, invite_id: str) -> Slip:
        """A slip that this console signed for this invite; Otherwise FailedPrecondition, OLD_PAGE."""
        try:
            found = Slip(**self._slips.loads(slip))
        except (BadData, TypeError) as error:
            raise FailedPrecondition("This page is out of date; please reload it", reason="OLD_PAGE") from error
        if found.invite_id != invite_id:
            raise FailedPrecondition("This page was opened with another invite; please reload it", reason="OLD_PAGE")
        return found
