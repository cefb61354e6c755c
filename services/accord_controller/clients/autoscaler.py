"""How many rollout replicas a run needs: what is owed decides, between the number that it has anyway and the most."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from accord.controller import v1 as controller_v1


@dataclass
class Scale:
    """More replicas as soon as more is owed; fewer only when fewer would have done for `idle_seconds`."""

    most: int
    # What one replica is meant to owe, tokens.
    tokens_per_replica: int
    idle_seconds: float
    # When how many were needed, as far back as it counts.
    _needed: deque[tuple[float, int]] = field(default_factory=deque, repr=False)

    @classmethod
    def of(cls, spec: controller_v1.RunSpec) -> Scale | None:
        """That of a resolved spec; None where the number is fixed."""
        scale = spec.rollout.autoscale
        if scale.max_replicas <= spec.rollout.replicas:
            return None
        return cls(scale.max_replicas, scale.tokens_per_replica, scale.idle_seconds)

    def wanted(self, now: float, owed: int, least: int) -> int:
        """How many there should be, `least` or more. `now`: monotonic seconds; `owed`: tokens asked for, not drawn."""
        needed = max(least, min(self.most, math.ceil(owed / self.tokens_per_replica)))
        self._needed.append((now, needed))
        while self._needed[0][0] < now - self.idle_seconds:
            self._needed.popleft()
        return max(count for _, count in self._needed)
