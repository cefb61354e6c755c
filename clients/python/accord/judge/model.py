"""The seam to a language model that judges."""

from __future__ import annotations

from typing import Protocol


class JudgeModel(Protocol):
    """Answers a question. Raises `accord.errors`: Unavailable where it cannot be reached, others where it refuses."""

    async def ask(self, system: str, question: str) -> str:
        """The model's reply, as it gave it; as little at random as it can."""
        ...
