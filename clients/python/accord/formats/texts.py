"""Prompts and answers in the shapes that occur in files."""

from __future__ import annotations

from typing import Any

from accord.conversations import ROLES, conversation
from accord.formats import dialogue
from accord.formats.lines import BadLine, shown, text_of
from accord.types import v1 as types_v1

Turns = list[types_v1.ChatMessage]


def prompt_of(line: dict[str, Any]) -> types_v1.Conversation:
    """The conversation in `prompt`: a text, a raw dialogue, or a list of messages."""
    prompt = line["prompt"]
    if isinstance(prompt, list):
        return types_v1.Conversation(messages=messages_of(prompt, "prompt"))
    text = text_of(line, "prompt")
    if dialogue.is_dialogue(text):
        return types_v1.Conversation(messages=dialogue.parse(text))
    if not text.strip():
        raise BadLine("`prompt` is empty")
    return conversation(text)


def messages_of(value: list[Any], key: str) -> Turns:
    """A list of {"role", "content"}."""
    if not value:
        raise BadLine(f"`{key}` has no messages")
    turns: Turns = []
    for index, message in enumerate(value):
        where = f"`{key}[{index}]`"
        if not isinstance(message, dict) or message.keys() != {"role", "content"}:
            keys = f"the keys {', '.join(map(repr, message))}" if isinstance(message, dict) else shown(message)
            raise BadLine(f"{where} must be a mapping of `role` and `content`, not {keys}")
        if message["role"] not in ROLES:
            raise BadLine(f"{where}: `role` must be one of {', '.join(ROLES)}, not {shown(message['role'])}")
        turns.append(types_v1.ChatMessage(role=message["role"], content=text_of(message, "content", where)))
    return turns


def answer_of(value: Any, key: str, prompt: types_v1.Conversation) -> str:
    """An answer: a text, or messages of which the last is the assistant's and any others repeat the prompt."""
    if isinstance(value, str):
        return text_of({key: value}, key)
    if not isinstance(value, list):
        raise BadLine(f"`{key}` must be a text or a list of messages, not {shown(value)}")
    *before, last = messages_of(value, key)
    if last.role != "assistant":
        raise BadLine(f"`{key}` must end with an assistant message, not one with role {last.role}")
    if before and before != list(prompt.messages):
        raise BadLine(f"`{key}` contains more than the answer: its first messages differ from `prompt`")
    return last.content


def implicit_prompt(line: dict[str, Any]) -> dict[str, Any]:
    """A pair without `prompt`, completed with the prompt that both answers begin with."""
    chosen, rejected = (_split(line[key], key) for key in ("chosen", "rejected"))
    if chosen[0] != rejected[0]:
        raise BadLine("`prompt` is missing, and `chosen` and `rejected` do not begin with the same prompt")
    return {**line, "prompt": chosen[0], "chosen": chosen[1], "rejected": rejected[1]}


def _split(value: Any, key: str) -> tuple[Any, Any]:
    if isinstance(value, list) and len(value) > 1:
        return value[:-1], value[-1:]
    parts = dialogue.split_answer(value) if isinstance(value, str) else None
    if parts is None:
        raise BadLine(f"`prompt` is missing, and `{key}` is not a dialogue that begins with one")
    return parts
