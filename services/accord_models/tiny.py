"""Makes a tiny language model with random weights and its own tokenizer, in a second. It loads like any model folder.

For tests and for the conformance suites.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = (
    "the quick brown fox jumps over the lazy dog and then the other one",
    "user assistant system: please write a short and friendly answer, thank you",
    "What is the best way to learn? The best way is to try, to fail and to try again.",
    "I love this wonderful happy day. I hate that terrible sad night.",
)
PAD, BOS, EOS = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


def make_tiny_model(folder: Path, seed: int = 0, head_dim: int = 8, *, tied: bool = True) -> Path:
    """Writes a random 2-layer Llama (hidden 32, vocabulary 300) with tokenizer and chat template; returns `folder`.

    The same seed gives the same bytes; other seeds give different weights, but the same tokenizer. vLLM's attention
    on the CPU needs heads of at least 32. `tied`: the output head is the embeddings.
    """
    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=tied,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _untyped(LlamaForCausalLM)(config)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=[PAD, BOS, EOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer: PreTrainedTokenizerFast = _untyped(PreTrainedTokenizerFast)(
        tokenizer_object=backend, pad_token=PAD, bos_token=BOS, eos_token=EOS
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _untyped(kind: Any) -> Any:
    """Works around constructors that transformers does not annotate."""
    return kind
