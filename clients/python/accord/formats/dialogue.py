r"""Raw dialogues: `\n\nHuman: ...\n\nAssistant: ...\n\nHuman: ...\n\nAssistant:` to turns, and back.

The form of Anthropic's hh-rlhf. A marker counts only at the start of a paragraph, so a text that mentions "Human:"
stays a text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from accord.types import v1 as types_v1

_MARKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_NAMES = {role: name for name, role in _ROLES.items()}


def is_dialogue(text: str) -> bool:
    """Whether a prompt is a raw dialogue for the assistant to continue: starts with Human:, ends with Assistant:."""
    return text.lstrip("\n").startswith("Human:") and text.rstrip().endswith("\n\nAssistant:")


def parse(text: str) -> list[types_v1.ChatMessage]:
    """The turns of a dialogue, each without surrounding white space, and without the open turn at the end."""
    text = text.lstrip("\n")
    marks = list(_MARKER.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    turns = [
        types_v1.ChatMessage(role=_ROLES[mark.group(1)], content=text[mark.end() : end].strip())
        for mark, end in zip(marks, ends, strict=True)
    ]
    return turns[:-1] if turns[-1].role == "assistant" and not turns[-1].content else turns


def render(turns: Sequence[types_v1.ChatMessage]) -> str | None:
    """The dialogue of these turns, or None if it would not be read as the same turns."""
    if not all(turn.role in _NAMES for turn in turns):
        return None
    text = "".join(f"\n\n{_NAMES[turn.role]}: {turn.content}" for turn in turns) + "\n\nAssistant:"
    return text if is_dialogue(text) and parse(text) == list(turns) else None


def split_answer(text: str) -> tuple[str, str] | None:
    """A whole dialogue as (prompt, last answer), or None if the text is not one."""
    start, marker, answer = text.rpartition("\n\nAssistant:")
    prompt = start + marker
    return (prompt, answer.strip()) if marker and is_dialogue(prompt) else None
