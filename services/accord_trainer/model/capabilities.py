"""Whether a model computes what the packed path takes for granted: tried on a few tokens when it is loaded."""

from __future__ import annotations

import logging

import torch
from torch import nn
from transformers import PreTrainedModel

from accord_trainer.model.logprobs import response_states
from accord_trainer.model.packing import collate, make_rows
from accord_trainer.model.trunk import Trunk

log = logging.getLogger(__name__)
_PROMPTS = [[1, 2, 3], [1, 2, 3], [4, 5]]
_RESPONSES = [[4, 5], [6, 2, 1], [3]]
_TOLERANCE = 1e-3


@torch.no_grad()
def can_share(trunk: Trunk, pad: int) -> bool:
    """Whether packed rows give the hidden states of separate ones: the model honours a mask of four dimensions."""
    shared = make_rows(_PROMPTS, _RESPONSES, share=True, max_tokens=64, max_members=8)
    apart = make_rows(_PROMPTS, _RESPONSES, share=False, max_tokens=64, max_members=8)
    plain = collate(apart, pad=pad, share=False)
    expected, _ = response_states(trunk.hidden(plain), plain)
    packed = collate(shared, pad=pad, share=True)
    try:
        found, _ = response_states(trunk.hidden(packed), packed)
    except (ValueError, TypeError, RuntimeError, IndexError, NotImplementedError) as error:
        log.info("%s takes no packed rows (%s): one response a row", type(trunk.module).__name__, error)
        return False
    return bool(torch.allclose(found, expected, atol=_TOLERANCE * float(expected.abs().max().clamp(min=1.0))))


@torch.no_grad()
def head_gives_logits(model: PreTrainedModel, trunk: Trunk, head: nn.Module) -> bool:
    """Whether the model's logits are those of its head on its hidden states, nothing scaled or capped after it."""
    tokens = torch.tensor([_PROMPTS[0]])
    hidden = trunk.module(input_ids=tokens, use_cache=False).last_hidden_state
    return bool(torch.allclose(head(hidden), model(input_ids=tokens, use_cache=False).logits, atol=_TOLERANCE))
