"""The seam to a language model that judges."""

from __future__ import annotations

from typing import Protocol


class JudgeModel(Protocol):
    """Answers a question. Raises `accord.errors`: Unavailable if it cannot be reached, others if it refuses."""

    async def ask(self, system: str, question: str) -> str:
        """The model's reply, unchanged; as deterministic as the model allows."""
        ...
