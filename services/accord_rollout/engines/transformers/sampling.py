"""Samples tokens: the distribution, one random stream per row, the log-probabilities of the sampled tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor

from accord_rollout.engine import Sampling


def sampled_logits(logits_BV: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Logits whose softmax is the sampled distribution: float32, divided by the temperature, cut by top_k, then top_p.

    Temperature 0 (greedy) gives the plain logits: logprobs are then those of softmax(logits).
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


class TokenSampler(LogitsProcessor):
    """Chooses each row's next token and makes greedy `generate` take it.

    Inverse transform sampling: the first token at which the cumulated probability exceeds one uniform number.
    Gumbel-max would need a random number for each token of the vocabulary, an eighth of generation's time. A row's
    number comes from its own generator, so its tokens depend on its seed and logits, not on its neighbours.

    After generate, `tokens_TB` and `logprobs_TB` hold the samples of each step (rows that had ended before: pad, 0).
    """

    def __init__(
        self, sampling: Sampling, seeds: Sequence[int], eos_ids: Sequence[int], pad_id: int, device: torch.device
    ) -> None:
        self._sampling = sampling
        self._pad_id = pad_id
        self._eos = torch.tensor(sorted(eos_ids), device=device)
        self._running_B = torch.ones(len(seeds), dtype=torch.bool, device=device)
        # A generator takes 64 bits as a signed number.
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
        upto_BV = logits_BV.softmax(dim=-1).cumsum(dim=-1)
        uniform_B1 = torch.stack([torch.rand(1, generator=each, device=each.device) for each in self._generators])
        # Scaled to the mass that rounding left, so that no token after the last one with mass can be sampled.
        tokens_B1 = torch.searchsorted(upto_BV, uniform_B1 * upto_BV[:, -1:], right=True)
        return tokens_B1[:, 0].clamp(max=logits_BV.shape[-1] - 1)
