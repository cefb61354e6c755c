"""Tiny real language models, made on the spot."""

from __future__ import annotations

from pathlib import Path

from accord_models.tiny import BOS, EOS, PAD, make_tiny_model

__all__ = ["BOS", "EOS", "PAD", "make_collapsed_model", "make_tiny_model"]


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
