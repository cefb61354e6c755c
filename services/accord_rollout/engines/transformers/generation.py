"""Splits samples into batches and runs each through `generate`: padding, stopping, reading the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from accord_rollout.engine import Completion, Failed, Finish, Job, Sampling
from accord_rollout.engines.transformers.sampling import TokenSampler


def batches(jobs: Sequence[Job], max_batch_size: int) -> list[list[Job]]:
    """Jobs in batches of at most `max_batch_size`, similar prompt lengths together to save padding.

    The composition depends only on the jobs: a request gives the same batches wherever and whenever it runs.
    """
    ordered = sorted(jobs, key=lambda job: (len(job.prompt_token_ids), job.index))
    return [ordered[start : start + max_batch_size] for start in range(0, len(ordered), max_batch_size)]


@torch.inference_mode()
def generate_batch(
    model: PreTrainedModel,
    stop_ids: Sequence[int],
    pad_id: int,
    batch: Sequence[Job],
    sampling: Sampling,
    cancelled: Callable[[], bool],
) -> list[Completion | Failed]:
    """The responses to a batch, in its order; empty if it was cancelled, which is checked before each token."""
    if cancelled():
        return []
    ids_BT, mask_BT = _left_padded(batch, pad_id, model.device)
    sampler = TokenSampler(sampling, [job.seed for job in batch], stop_ids, pad_id, model.device)
    generate: Any = model.generate  # typed as a tensor by torch's Module
    generate(
        inputs=ids_BT,
        attention_mask=mask_BT,
        generation_config=GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,  # greedy over the sampler's choice
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=list(stop_ids) or None,
            pad_token_id=pad_id,
        ),
        logits_processor=LogitsProcessorList([sampler]),
        stopping_criteria=StoppingCriteriaList([_Cancelled(cancelled)]),
    )
    if cancelled():
        return []
    tokens_BT = torch.stack(sampler.tokens_TB, dim=1).tolist()
    logprobs_BT = torch.stack(sampler.logprobs_TB, dim=1).tolist()
    return [
        _result(job, tokens_T, logprobs_T, stop_ids)
        for job, tokens_T, logprobs_T in zip(batch, tokens_BT, logprobs_BT, strict=True)
    ]


class _Cancelled(StoppingCriteria):
    """Ends every row between two tokens when the caller has cancelled the request."""

    def __init__(self, cancelled: Callable[[], bool]) -> None:
        self._cancelled = cancelled

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._cancelled(), dtype=torch.bool, device=input_ids.device)


def _left_padded(batch: Sequence[Job], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(job.prompt_token_ids) for job in batch)
    ids_BT = torch.full((len(batch), longest), pad_id, dtype=torch.long)
    mask_BT = torch.zeros((len(batch), longest), dtype=torch.long)
    for row, job in enumerate(batch):
        ids_BT[row, longest - len(job.prompt_token_ids) :] = torch.tensor(job.prompt_token_ids)
        mask_BT[row, longest - len(job.prompt_token_ids) :] = 1
    return ids_BT.to(device), mask_BT.to(device)


def _result(job: Job, tokens_T: list[int], logprobs_T: list[float], stop_ids: Sequence[int]) -> Completion | Failed:
    """A row up to and including its first stop token."""
    end = next((step + 1 for step, token in enumerate(tokens_T) if token in stop_ids), None)
    tokens, logprobs = tuple(tokens_T[:end]), tuple(logprobs_T[:end])
    if not all(math.isfinite(logprob) for logprob in logprobs):
        return Failed(
            job.index, "NON_FINITE_LOGITS", "the model's logits are not finite numbers: its weights are broken"
        )
    return Completion(job.index, tokens, logprobs, Finish.LENGTH if end is None else Finish.STOP)
