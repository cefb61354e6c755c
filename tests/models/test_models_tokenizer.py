"""Tokenizers: a fingerprint that means the ids, conversations rendered with and without a chat template."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support.rollout import user
from transformers import BertTokenizerFast

from accord.errors import InvalidArgument
from accord.types import v1 as types_v1
from accord_models.precision import compute_threads, fastest_dtype, resolve_dtype
from accord_models.tokenizer import fingerprint, load_tokenizer, pair_inputs, render, render_response


def test_the_fingerprint_survives_saving_and_padding(tiny_folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_folder)
    first = fingerprint(tokenizer)
    tokenizer(["a", "longer"], padding=True, truncation=True, max_length=5)
    assert fingerprint(tokenizer) == first
    tokenizer.save_pretrained(tmp_path)
    assert fingerprint(load_tokenizer(tmp_path)) == first


def test_the_fingerprint_changes_with_the_ids_and_the_end(tiny_folder: Path) -> None:
    first = fingerprint(load_tokenizer(tiny_folder))
    grown = load_tokenizer(tiny_folder)
    grown.add_tokens(["<extra>"])
    assert fingerprint(grown) != first
    other_end = load_tokenizer(tiny_folder)
    other_end.eos_token = "<|endoftext|>"
    assert fingerprint(other_end) != first
    other_template = load_tokenizer(tiny_folder)
    other_template.chat_template = "{{ messages[0].content }}"
    assert fingerprint(other_template) == first


def test_a_conversation_is_rendered_by_the_template(tiny_folder: Path) -> None:
    tokenizer = load_tokenizer(tiny_folder)
    assert tokenizer.decode(render(tokenizer, user("hi"))) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(render_response(tokenizer, user("hi"), "yes")) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"
    )


def test_without_a_template_the_turns_are_named(tiny_folder: Path) -> None:
    tokenizer = load_tokenizer(tiny_folder)
    tokenizer.chat_template = None
    assert tokenizer.decode(render(tokenizer, user("hi"))) == "User: hi\n\nAssistant:"
    assert tokenizer.decode(render_response(tokenizer, user("hi"), "yes")) == "User: hi\n\nAssistant: yes"


def test_an_encoder_reads_prompt_and_response_as_a_pair(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "hi", "yes", "user", "assistant", ":"]
    BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.decode(render_response(tokenizer, user("hi"), "yes")) == "[CLS] hi [SEP] yes [SEP]"
    turns = [("user", "hi"), ("assistant", "yes"), ("user", "hi")]
    dialogue = types_v1.Conversation(messages=[types_v1.ChatMessage(role=r, content=text) for r, text in turns])
    assert tokenizer.decode(render_response(tokenizer, dialogue, "yes")) == (
        "[CLS] user : hi assistant : yes user : hi [SEP] yes [SEP]"
    )


def test_the_second_text_of_a_pair_is_marked_and_only_where_the_model_asks_for_it(tiny_folder: Path) -> None:
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "hi"])})
    expected = tokenizer(["hi hi"], ["hi"], return_tensors="pt")
    assert torch.equal(pair_inputs(tokenizer, expected["input_ids"])["token_type_ids"], expected["token_type_ids"])
    assert pair_inputs(load_tokenizer(tiny_folder), torch.tensor([[1, 2]])) == {}


@pytest.mark.parametrize(
    "conversation",
    [
        types_v1.Conversation(),
        types_v1.Conversation(messages=[types_v1.ChatMessage(role="oracle", content="?")]),
    ],
)
def test_a_conversation_that_is_none_is_refused(tiny_folder: Path, conversation: types_v1.Conversation) -> None:
    with pytest.raises(InvalidArgument) as refused:
        render(load_tokenizer(tiny_folder), conversation)
    assert refused.value.reason == "BAD_CONVERSATION"


def test_what_the_template_refuses_is_said_in_its_words(tiny_folder: Path) -> None:
    tokenizer = load_tokenizer(tiny_folder)
    tokenizer.chat_template = "{{ raise_exception('no such turns here') }}"
    with pytest.raises(InvalidArgument, match="no such turns here"):
        render(tokenizer, user("hi"))


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as refused:
        load_tokenizer(tmp_path)
    assert refused.value.reason == "BAD_TOKENIZER"


def test_precision_and_threads_are_what_is_set_or_measured() -> None:
    assert fastest_dtype() in ("float32", "bfloat16")
    assert resolve_dtype("auto") == fastest_dtype()
    assert resolve_dtype("bfloat16") == "bfloat16"
    with pytest.raises(InvalidArgument):
        resolve_dtype("int3")
    before = compute_threads(0)
    try:
        assert compute_threads(1) == 1
    finally:
        assert compute_threads(before) == before
