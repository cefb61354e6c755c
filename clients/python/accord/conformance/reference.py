"""Recomputes logprobs, with transformers or with a function that the caller names. torch is imported on first use."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from accord.conformance.target import Reference
from accord.errors import FailedPrecondition, InvalidArgument
from accord.types import v1 as types_v1


def reference_named(name: str) -> Reference | None:
    """`transformers`, `none`, or `FILE.py:FUNCTION`. InvalidArgument, FailedPrecondition/MISSING_EXTRA."""
    if name == "none":
        return None
    if name == "transformers":
        if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
            raise FailedPrecondition(
                "The reference needs torch and transformers: pip install 'accord-rlhf[models]', or --reference none",
                reason="MISSING_EXTRA",
            )
        return transformers_logprobs
    path, _, function = name.rpartition(":")
    spec = importlib.util.spec_from_file_location("accord_conformance_reference", path) if path else None
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise InvalidArgument.at("reference", f"{name} is not `transformers`, `none` or FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Reference = getattr(module, function)
    return found


def transformers_logprobs(
    folder: Path, prompt: Sequence[int], response: Sequence[int], sampling: types_v1.SamplingParams
) -> list[float]:
    """One plain float32 forward pass, without padding or cache: log softmax(logits / temperature, truncated to
    top_k)."""
    torch: Any = importlib.import_module("torch")
    with torch.no_grad():
        ids_1T = torch.tensor([[*prompt, *response]])
        logits_TV = _model(folder)(ids_1T).logits[0, len(prompt) - 1 : -1].float()
    temperature = sampling.temperature if sampling.HasField("temperature") else 1.0
    logits_TV = logits_TV / (temperature or 1.0)
    if 0 < sampling.top_k < logits_TV.shape[-1]:
        least_T1 = logits_TV.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits_TV = logits_TV.masked_fill(logits_TV < least_T1, -torch.inf)
    logprobs_TV = logits_TV.log_softmax(dim=-1)
    return [float(logprobs_TV[step, token]) for step, token in enumerate(response)]


@lru_cache(maxsize=1)
def _model(folder: Path) -> Any:
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
