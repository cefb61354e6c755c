"""Q-guided sampling as a plain language model.

The policy of implicit language Q-learning is pi(a|s) ~ pi_beta(a|s) exp(beta (Q(s, a) - V(s))) (Snell et al. 2022,
arXiv 2206.11871). V is the same for all tokens and cancels in the softmax; Q is linear in the last hidden state, as
the language model's logits are. So the guided logits are those of the same trunk under another head:

    logits + beta Q = (W + beta W_q) h + bias

and every engine that can load the model can sample from it without special code.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def guided(model: PreTrainedModel, q_weight_VD: Tensor, beta: float) -> PreTrainedModel:
    """`model` with `beta` times `q_weight_VD` added to its output layer. Everything else is shared with `model`, which
    is not changed. An output layer that was tied to the embeddings becomes untied."""
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        weight_VD = head.weight.detach() + beta * q_weight_VD.detach().to(head.weight.dtype)
    new = nn.Linear(head.in_features, head.out_features, bias=False, device="meta")
    new.weight = nn.Parameter(weight_VD, requires_grad=False)
    new.bias = head.bias
    name = next(name for name, module in model.named_modules() if module is head)
    found: Any = _with(model, name.split("."), new)
    found.config = _untied(model.config)
    if hasattr(model, "all_tied_weights_keys"):
        keys = model.all_tied_weights_keys.items()
        kept = {one: other for one, other in keys if not {one, other} & {f"{name}.weight", f"{name}.bias"}}
        found.all_tied_weights_keys = kept
    made: PreTrainedModel = found
    return made


def _with(module: nn.Module, path: list[str], new: nn.Module) -> nn.Module:
    """A shallow copy of `module` with `new` at `path`: only the modules on the path are copied."""
    found = copy.copy(module)
    found._modules = dict(module._modules)
    child = module.get_submodule(path[0])
    found._modules[path[0]] = new if len(path) == 1 else _with(child, path[1:], new)
    return found


def _untied(config: Any) -> Any:
    found = copy.deepcopy(config)
    for part in (found, found.get_text_config()):
        part.tie_word_embeddings = False
    return found
