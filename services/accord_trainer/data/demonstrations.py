"""Texts that people or programs wrote, as the tokens that the policy would have to generate."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from accord.errors import InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_models.tokenizer import render, render_continuation


def prompt_and_response(
    tokenizer: PreTrainedTokenizerBase,
    prompt: types_v1.Conversation,
    response: str,
    max_tokens: int,
    at: str,
    *,
    truncated: bool = False,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of the prompt, as an engine renders it, and of the response with its eos, which a `truncated` one
    does not have.

    A prompt that is too long loses its beginning; a response is never cut: InvalidArgument naming `at` if it leaves no
    room for one token of the prompt, or has no tokens.
    """
    response_ids = render_continuation(tokenizer, response)
    if truncated and response_ids and response_ids[-1] == tokenizer.eos_token_id:
        response_ids = response_ids[:-1]
    if not response_ids:
        raise InvalidArgument.at(at, "has no tokens, so there is nothing to learn")
    room = max_tokens - len(response_ids)
    if room < 1:
        raise InvalidArgument.at(
            at, f"has {len(response_ids)} tokens, which leaves no room for a prompt within max_tokens ({max_tokens})"
        )
    return tuple(render(tokenizer, prompt)[-room:]), tuple(response_ids)


def response_of(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[trainer_v1.PreferenceExample],
    i: int,
    k: int,
    max_tokens: int,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`prompt_and_response` of the k-th response of the i-th example of a batch."""
    example = examples[i]
    at = f"chunk.preferences[{i}].responses[{k}]"
    truncated = cut_off(example, k)
    return prompt_and_response(tokenizer, example.prompt, example.responses[k], max_tokens, at, truncated=truncated)


def cut_off(example: trainer_v1.PreferenceExample, k: int) -> bool:
    """Whether the k-th response was cut off."""
    return bool(example.truncated) and example.truncated[k]
