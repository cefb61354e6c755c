"""Converts the seam's types to vLLM's and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vllm import SamplingParams
from vllm.exceptions import VLLMClientError
from vllm.sampling_params import RequestOutputKind

from accord.errors import InvalidArgument
from accord_rollout.engine import PROBE_TOKENS, Completion, Failed, Finish, Sampling, Weights, WeightSpan


def sampling_params(sampling: Sampling, stop_ids: Sequence[int]) -> SamplingParams:
    """All but the seed. InvalidArgument if vLLM does not support it (its temperatures end at 2)."""
    try:
        return SamplingParams(
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            logprobs=0,  # of the sampled token only
            flat_logprobs=True,
            stop_token_ids=list(stop_ids),
            ignore_eos=True,  # stop_ids has it
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
    except (VLLMClientError, ValueError) as error:
        raise InvalidArgument(f"sampling: vLLM does not support it: {error}", reason="ENGINE_REFUSES") from error


def completion(index: int, output: Any, versions: Mapping[str, Weights]) -> Completion | Failed:
    """The result from a finished CompletionOutput. `versions`: the weights by label."""
    tokens = tuple(output.token_ids)
    if output.finish_reason not in ("stop", "length") or not tokens:
        return Failed(index, "ENGINE_ABORTED", f"vLLM ended the sample early: {output.finish_reason}", retryable=True)
    logprobs = tuple(output.logprobs.logprobs)
    if len(logprobs) != len(tokens) or not all(math.isfinite(logprob) for logprob in logprobs):
        return Failed(index, "NON_FINITE_LOGITS", "the model's logits are not finite numbers: its weights are broken")
    return Completion(
        index,
        tokens,
        tuple(min(logprob, 0.0) for logprob in logprobs),
        Finish.STOP if output.finish_reason == "stop" else Finish.LENGTH,
        tuple(WeightSpan(span.start, versions[span.version]) for span in output.weight_versions),
    )


def probe_logprobs(output: Any) -> tuple[float, ...]:
    """Log-probabilities of the prompt's tokens from the second on, nats."""
    return tuple(
        float(at[token].logprob) for token, at in zip(PROBE_TOKENS[1:], output.prompt_logprobs[1:], strict=True)
    )
