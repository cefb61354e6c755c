"""Log-probabilities by one plain forward, one sample at a time: what an engine's are compared with."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


def recomputed_logprobs(
    folder: Path, prompt: list[int], response: list[int], temperature: float = 1.0, top_k: int = 0
) -> list[float]:
    """log softmax(logits / temperature, outside the top_k: -inf) of each response token, without padding or cache."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits_TV = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1] / temperature
    if top_k:
        kept_TV = torch.full_like(logits_TV, -torch.inf)
        top = logits_TV.topk(top_k, dim=-1)
        logits_TV = kept_TV.scatter(-1, top.indices, top.values)
    logprobs_TV = torch.log_softmax(logits_TV, dim=-1)
    return [float(logprobs_TV[step, token]) for step, token in enumerate(response)]
