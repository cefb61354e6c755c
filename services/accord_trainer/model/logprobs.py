"""Log-probabilities, entropies and values of response tokens from hidden states: prompt tokens never meet the head."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from accord_trainer.model.packing import Packed

ENTROPY_CHUNK = 256


def autocast(compute_dtype: str, device: str = "cpu") -> AbstractContextManager[object]:
    """Matrix products in bfloat16 where that was found faster; float32 otherwise."""
    if compute_dtype != "bfloat16":
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False)


def response_states(hidden_WTD: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
    """The states before each response token, (N, D), all responses in turn, and after each response, (B, D)."""
    flat_ND = hidden_WTD.flatten(0, 1)
    before_N = torch.cat([states[:-1] for states in packed.states])
    after_B = torch.stack([states[-1] for states in packed.states])
    # index_select, unlike indexing, adds gradients up in a fixed order: repeats are bit-equal.
    return flat_ND.index_select(0, before_N), flat_ND.index_select(0, after_B)


def pad(values_N: Tensor, lengths: Sequence[int], width: int) -> Tensor:
    """Flat per-token values as (B, width), 0 at the pads."""
    padded_BR = nn.utils.rnn.pad_sequence(list(torch.split(values_N, list(lengths))), batch_first=True)
    return functional.pad(padded_BR, (0, width - padded_BR.shape[1]))


def scaled_logits(states_ND: Tensor, head: nn.Module, temperature_N: Tensor) -> Tensor:
    """logits / temperature, (N, V), float32. Without a bias the states are divided: they are far smaller."""
    if getattr(head, "bias", None) is None:
        logits_NV: Tensor = head(states_ND / temperature_N[:, None])
        return logits_NV.float()
    logits_NV = head(states_ND)
    return logits_NV.float() / temperature_N[:, None]


def token_logprobs(
    states_ND: Tensor, targets_N: Tensor, temperature_N: Tensor, head: nn.Module, *, entropy: bool, chunk: int = 0
) -> tuple[Tensor, Tensor | None]:
    """log p(target) of each token, nats, and where asked for the entropy of each distribution, nats.

    With `chunk` the logits of no more than so many tokens exist at once: they are let go of, and computed again for the
    gradient.
    """
    if not chunk or len(targets_N) <= chunk:
        return _logprobs(states_ND, targets_N, temperature_N, head, entropy)
    run = _logprobs if not torch.is_grad_enabled() else _recomputed_logprobs
    states, targets, temperatures = (torch.split(one, chunk) for one in (states_ND, targets_N, temperature_N))
    pieces = zip(states, targets, temperatures, strict=True)
    found = [run(*piece, head, entropy) for piece in pieces]
    logprobs_N = torch.cat([logprobs for logprobs, _ in found])
    return logprobs_N, torch.cat([part for _, part in found if part is not None]) if entropy else None


def _recomputed_logprobs(
    states_ND: Tensor, targets_N: Tensor, temperature_N: Tensor, head: nn.Module, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    found: tuple[Tensor, Tensor | None] = checkpoint(
        _logprobs, states_ND, targets_N, temperature_N, head, entropy, use_reentrant=False, preserve_rng_state=False
    )
    return found


def _logprobs(
    states_ND: Tensor, targets_N: Tensor, temperature_N: Tensor, head: nn.Module, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    logits_NV = scaled_logits(states_ND, head, temperature_N)
    logprobs_N = -functional.cross_entropy(logits_NV, targets_N, reduction="none")
    if not entropy:
        return logprobs_N, None
    # In pieces that stay in the cache; with gradient only where a loss asks for it.
    parts = [token_entropy(piece_NV) for piece_NV in torch.split(logits_NV, ENTROPY_CHUNK)]
    return logprobs_N, torch.cat(parts)


def token_entropy(logits_NV: Tensor) -> Tensor:
    """H = log Z - sum of p * logit, nats."""
    normaliser_N = torch.logsumexp(logits_NV, dim=-1)
    probabilities_NV = (logits_NV - normaliser_N[:, None]).exp()
    return normaliser_N - (probabilities_NV * logits_NV).sum(dim=-1)
