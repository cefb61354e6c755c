"""A tiny real language model, made on the spot: random weights, its own tokenizer, loads like any other folder."""

from __future__ import annotations

from pathlib import Path

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

    The same seed gives the same bytes; another seed another model with the same tokenizer. vLLM's attention on the CPU
    takes heads of 32 and wider. `tied`: the output head is the embeddings.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

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
        model = LlamaForCausalLM(config)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_collapsed_model(folder: Path, base: Path, token: int) -> Path:
    """Writes the model in `base` changed so that it says `token` after whatever it is given; returns `folder`.

    Its logit is some 60 above all others: no draw at temperature 1 finds another, one at 1000 does.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, tie_word_embeddings=False)
    with torch.no_grad():
        # One direction is the same and large after every token, and the head looks at nothing else.
        model.get_input_embeddings().weight[:, 0] = 10.0
        model.get_output_embeddings().weight.zero_()
        model.get_output_embeddings().weight[token, 0] = 10.0
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def _tokenizer():  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

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
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=PAD, bos_token=BOS, eos_token=EOS)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
