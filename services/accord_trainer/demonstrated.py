"""Texts that people or programs wrote, as the tokens that the policy would have to generate."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from accord.errors import InvalidArgument
from accord.types import v1 as types_v1
from accord_models.tokenizer import render, render_continuation


def prompt_and_response(
    tokenizer: PreTrainedTokenizerBase, prompt: types_v1.Conversation, response: str, max_tokens: int, at: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of the prompt, as an engine renders it, and of the response with its end.

    A prompt that is too long loses its beginning; a response is never cut: InvalidArgument naming `at` where it leaves
    no room for one token of the prompt.
    """
    response_ids = render_continuation(tokenizer, response)
    room = max_tokens - len(response_ids)
    if room < 1:
        raise InvalidArgument.at(
            at, f"has {len(response_ids)} tokens; with a prompt that is more than max_tokens ({max_tokens})"
        )
    return tuple(render(tokenizer, prompt)[-room:]), tuple(response_ids)
