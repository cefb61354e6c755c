"""Tokenizers: loading, the fingerprint that travels with tokens, conversations to token ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError
from torch import Tensor
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from accord.errors import InvalidArgument
from accord.types import v1 as types_v1

_ROLE_NAMES = {"system": "System", "user": "User", "assistant": "Assistant"}


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, padding on the left. If it defines no pad token, it pads with eos.

    InvalidArgument/BAD_TOKENIZER if there is none.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")):
        raise InvalidArgument(f"{folder} has no tokenizer (tokenizer.json)", reason="BAD_TOKENIZER")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
    except Exception as error:  # the backends raise bare Exception on damaged files
        raise InvalidArgument(f"the tokenizer in {folder} cannot be loaded: {error}", reason="BAD_TOKENIZER") from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise InvalidArgument(f"the tokenizer in {folder} has neither pad nor eos token", reason="BAD_TOKENIZER")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hex) of everything that determines the ids of a text and the end of a response.

    Includes vocabulary, merges, normalisation, added tokens, bos and eos. Excludes the chat template, the pad token and
    the state of padding and truncation, which do not change the meaning of an id.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules: dict[str, Any] = json.loads(backend.to_str())
        rules.pop("padding", None)
        rules.pop("truncation", None)
    else:
        rules = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    identity = {"rules": rules, "bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id}
    return hashlib.sha256(json.dumps(identity, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def render(tokenizer: PreTrainedTokenizerBase, conversation: types_v1.Conversation) -> list[int]:
    """Token ids of the conversation with the start of the assistant's turn, which a policy continues.

    Without a chat template: `User: ...` paragraphs ending in `Assistant:`. InvalidArgument/BAD_CONVERSATION.
    """
    messages = _messages(conversation)
    if tokenizer.chat_template:
        return _apply(tokenizer, messages, add_generation_prompt=True)
    ids: list[int] = tokenizer(_plain(messages) + "\n\nAssistant:")["input_ids"]
    # Some tokenizers end every text with eos; a prompt is open-ended.
    return ids[:-1] if ids and ids[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id) else ids


def render_continuation(tokenizer: PreTrainedTokenizerBase, response: str) -> list[int]:
    """Token ids of `response` as a policy would generate them after `render`, ending in eos."""
    # After `Assistant:` the first word begins with a space.
    text = response if tokenizer.chat_template else f" {response}"
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids if tokenizer.eos_token_id is None else [*ids, tokenizer.eos_token_id]


def render_response(
    tokenizer: PreTrainedTokenizerBase, conversation: types_v1.Conversation, response: str
) -> list[int]:
    """Token ids of the whole conversation with `response` as the assistant's last turn, which a reward model scores.

    By the chat template; encoders ([CLS] and [SEP]) read the response as the second text of a pair; others read
    `User: ...` paragraphs. InvalidArgument/BAD_CONVERSATION.
    """
    messages = _messages(conversation)
    turn = {"role": "assistant", "content": response}
    if tokenizer.chat_template:
        return _apply(tokenizer, [*messages, turn], add_generation_prompt=False)
    ids: list[int]
    if tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None:
        # A single turn needs no role name: encoders were trained on plain text.
        prompt = messages[0]["content"] if len(messages) == 1 else _plain(messages)
        ids = tokenizer(prompt, response)["input_ids"]
    else:
        ids = tokenizer(_plain([*messages, turn]))["input_ids"]
    return ids


def pair_inputs(tokenizer: PreTrainedTokenizerBase, tokens_BT: Tensor) -> dict[str, Tensor]:
    """The further input of BERT-like encoders: `token_type_ids`, (B, T), 0 up to the first [SEP] and 1 after it
    (Devlin et al. 2019, arXiv 1810.04805, figure 2). Empty for models without this input."""
    if "token_type_ids" not in tokenizer.model_input_names or tokenizer.sep_token_id is None:
        return {}
    ends_BT = (tokens_BT == tokenizer.sep_token_id).long()
    return {"token_type_ids": (ends_BT.cumsum(1) - ends_BT).clamp(max=1)}


def reading_limit(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """The maximum number of tokens that the model can read, limited by its positions and its tokenizer."""
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    return int(min(positions, tokenizer.model_max_length))


def keep_end(tokenizer: PreTrainedTokenizerBase, token_ids: list[int], limit: int) -> list[int]:
    """The last `limit` tokens, for a reward model to read; a start token ([CLS], bos) stays in front.

    The trainer and the reward service both truncate with it, so a model scores the tokens that it was trained on.
    """
    if len(token_ids) <= limit:
        return token_ids
    if token_ids[0] in (tokenizer.cls_token_id, tokenizer.bos_token_id) and limit > 1:
        return [token_ids[0], *token_ids[len(token_ids) - limit + 1 :]]
    return token_ids[len(token_ids) - limit :]


def answer_start(tokenizer: PreTrainedTokenizerBase, conversation: types_v1.Conversation, ids: Sequence[int]) -> int:
    """The number of `ids` of `render_response` before the response: the prefix that they share with `render`."""
    prompt = render(tokenizer, conversation)
    shortest = min(len(prompt), len(ids))
    return next((at for at in range(shortest) if prompt[at] != ids[at]), shortest)


def after_cut(start: int, length: int, kept: int) -> int:
    """The start of the response within the last `kept` of `length` tokens, if it starts at `start` of all tokens."""
    return min(max(start - (length - kept), 0), kept - 1)


def _messages(conversation: types_v1.Conversation) -> list[dict[str, str]]:
    if not conversation.messages:
        raise InvalidArgument("the conversation has no messages", reason="BAD_CONVERSATION")
    for message in conversation.messages:
        if message.role not in _ROLE_NAMES:
            raise InvalidArgument(
                f"role {message.role!r} is unknown; known: {', '.join(_ROLE_NAMES)}", reason="BAD_CONVERSATION"
            )
    return [{"role": message.role, "content": message.content} for message in conversation.messages]


def _apply(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], add_generation_prompt: bool
) -> list[int]:
    try:
        ids: Any = tokenizer.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, tokenize=True, return_dict=False
        )
    except TemplateError as error:
        raise InvalidArgument(
            f"the model's chat template refuses the conversation: {error}", reason="BAD_CONVERSATION"
        ) from error
    return list(ids)


def _plain(messages: list[dict[str, str]]) -> str:
    return "\n\n".join(f"{_ROLE_NAMES[message['role']]}: {message['content']}" for message in messages)
