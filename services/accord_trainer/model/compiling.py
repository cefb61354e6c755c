"""How transformer blocks are run: compiled, and with or without keeping what is inside them for the backward pass.

Only a block's own `forward` is wrapped: what hangs hooks on the module (the frozen blocks' cut, FSDP2's gathering)
stays outside, and the names of parameters stay as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from accord.errors import FailedPrecondition
from accord_trainer.options import AlgorithmOptions

log = logging.getLogger(__name__)


def prepare_blocks(blocks: Iterable[nn.Module], options: AlgorithmOptions, device: torch.device) -> None:
    """Compiles the blocks and checkpoints their activations, as the options say.

    FailedPrecondition, COMPILE_UNAVAILABLE, where torch.compile has no working compiler."""
    if options.compile:
        require_compiler(device.type)
    for block in blocks:
        if options.compile:
            # One program for every batch's lengths: the numbers must not depend on which lengths came first.
            block.forward = torch.compile(block.forward, dynamic=True)
        if options.activation_checkpointing:
            block.forward = partial(_recomputed, block.forward)


def _recomputed(forward: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Keeps the inputs alone and runs the block again in the backward pass (Chen et al. 2016, arXiv 1604.06174)."""
    if not torch.is_grad_enabled():
        return forward(*arguments, **keywords)
    # There is no dropout, so no random state to keep.
    return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False, **keywords)


@cache
def require_compiler(device: str) -> None:
    """FailedPrecondition, COMPILE_UNAVAILABLE, where a function of one line cannot be compiled on `device`."""
    try:
        torch.compile(_probe)(torch.ones(8, device=device))
    except Exception as error:  # inductor raises many types: a missing compiler, a missing Triton, a failed build
        log.info("torch.compile does not work here", exc_info=True)
        what = next(iter(str(error).splitlines()), repr(error))
        raise FailedPrecondition(
            f"training.options.compile: torch.compile does not work here ({what}): install a C++ compiler (on GPUs "
            "Triton as well), or leave the option off",
            reason="COMPILE_UNAVAILABLE",
        ) from error


def _probe(values: torch.Tensor) -> torch.Tensor:
    return values.sin() * 2.0 + 1.0
