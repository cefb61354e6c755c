"""Drawing tokens: the sampled distribution, one random stream for each row, logprobs of what was drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor

from accord_rollout.engine import Sampling


def sampled_logits(logits_BV: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Logits whose softmax is the sampled distribution: float32, divided by the temperature, cut by top_k, then top_p.

    With temperature 0 (greedy) the plain logits: logprobs are then those of softmax(logits).
    """
    logits_BV = logits_BV.float()
    if sampling.temperature == 0:
        return logits_BV
    logits_BV = logits_BV / sampling.temperature
    if 0 < sampling.top_k < logits_BV.shape[-1]:
        least_B1 = logits_BV.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
    if sampling.top_p < 1:
        sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
        probs_BV = sorted_BV.softmax(dim=-1)
        # A token stays while the mass before it is below top_p, so the likeliest always does.
        cut_BV = probs_BV.cumsum(dim=-1) - probs_BV >= sampling.top_p
        logits_BV = logits_BV.masked_fill(cut_BV.scatter(-1, order_BV, cut_BV), -torch.inf)
    return logits_BV


class Draw(LogitsProcessor):
    """Chooses each row's next token and makes greedy `generate` take it.

    Gumbel-max (Gumbel 1954): argmax(logits + g) with g = -log(-log u) is a draw from softmax(logits); equally
    argmax(probs / e) with e exponential, which needs no logarithm over the vocabulary. A row's noise comes from its own
    generator, so its tokens depend on its seed and logits, not on its neighbours.

    After generate, `tokens_TB` and `logprobs_TB` hold what was drawn at each step (rows that had ended before: pad, 0).
    """

    def __init__(
        self, sampling: Sampling, seeds: Sequence[int], eos_ids: Sequence[int], pad_id: int, device: torch.device
    ) -> None:
        self._sampling = sampling
        self._pad_id = pad_id
        self._eos = torch.tensor(sorted(eos_ids), device=device)
        self._running_B = torch.ones(len(seeds), dtype=torch.bool, device=device)
        # A generator takes 64 bits, written as a signed number.
        self._generators = [
            torch.Generator(device).manual_seed(seed - 2**64 if seed >= 2**63 else seed) for seed in seeds
        ]
        self.tokens_TB: list[torch.Tensor] = []
        self.logprobs_TB: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        logits_BV = sampled_logits(scores, self._sampling)
        tokens_B = self._choose(logits_BV)
        chosen_B = logits_BV.gather(-1, tokens_B[:, None])[:, 0]
        logprobs_B = (chosen_B - logits_BV.logsumexp(dim=-1)).clamp(max=0.0)
        tokens_B = tokens_B.where(self._running_B, self._pad_id)
        self.tokens_TB.append(tokens_B)
        self.logprobs_TB.append(logprobs_B.where(self._running_B, 0.0))
        self._running_B &= ~torch.isin(tokens_B, self._eos)
        return torch.full_like(scores, -torch.inf).scatter_(-1, tokens_B[:, None], 0.0)

    def _choose(self, logits_BV: torch.Tensor) -> torch.Tensor:
        if self._sampling.temperature == 0:
            return logits_BV.argmax(dim=-1)
        probs_BV = logits_BV.softmax(dim=-1)
        noise_V = torch.empty_like(probs_BV[0])
        for row in self._running_B.nonzero()[:, 0].tolist():
            noise_V.exponential_(generator=self._generators[row])
            probs_BV[row] /= noise_V
        return probs_BV.argmax(dim=-1)
