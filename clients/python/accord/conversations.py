"""Conversations from a text or from turns."""

from __future__ import annotations

from collections.abc import Iterable

from accord.types import v1 as types_v1

ROLES = ("system", "user", "assistant")


def conversation(prompt: str | Iterable[tuple[str, str]] | types_v1.Conversation) -> types_v1.Conversation:
    """A text becomes one user turn; (role, content) pairs become the turns, oldest first."""
    if isinstance(prompt, types_v1.Conversation):
        return prompt
    turns = [("user", prompt)] if isinstance(prompt, str) else prompt
    return types_v1.Conversation(messages=[types_v1.ChatMessage(role=role, content=content) for role, content in turns])
