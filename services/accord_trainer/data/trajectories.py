"""Samples as tensors: what PPO works on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1


@dataclass(frozen=True)
class Trajectories:
    """B responses, padded to R tokens. `mask_BR` is true where the policy chose the token."""

    prompts: list[list[int]]
    responses: list[list[int]]
    mask_BR: Tensor
    rollout_logprobs_BR: Tensor
    score_B: Tensor
    temperature_B: Tensor
    # True where the response was cut off at max_new_tokens.
    truncated_B: Tensor
    # The most tokens that the response could have had.
    limit_B: Tensor

    @property
    def width(self) -> int:
        """R."""
        return self.mask_BR.shape[1]


def trajectories(samples: list[trainer_v1.ScoredSample]) -> Trajectories:
    """The tensors of verified samples."""
    width = max(len(scored.sample.response_token_ids) for scored in samples)
    mask_BR = torch.zeros(len(samples), width, dtype=torch.bool)
    logprobs_BR = torch.zeros(len(samples), width)
    for b, scored in enumerate(samples):
        length = len(scored.sample.response_token_ids)
        mask_BR[b, :length] = torch.tensor(list(scored.sample.response_mask))
        logprobs_BR[b, :length] = torch.tensor(list(scored.sample.logprobs))
    return Trajectories(
        prompts=[list(scored.sample.prompt_token_ids) for scored in samples],
        responses=[list(scored.sample.response_token_ids) for scored in samples],
        mask_BR=mask_BR,
        rollout_logprobs_BR=logprobs_BR,
        score_B=torch.tensor([scored.score for scored in samples], dtype=torch.float32),
        temperature_B=torch.tensor([temperature(scored.sample) for scored in samples]),
        limit_B=torch.tensor(
            [max(s.sample.sampling.max_new_tokens, len(s.sample.response_token_ids)) for s in samples]
        ),
        truncated_B=torch.tensor([scored.sample.finish_reason == types_v1.FINISH_REASON_LENGTH for scored in samples]),
    )


def temperature(sample: types_v1.Sample) -> float:
    """What the sample's logits were divided by; unset means 1."""
    return sample.sampling.temperature if sample.sampling.HasField("temperature") else 1.0
