"""A linear reward model: a head fitted to the states of a frozen language model.

Logistic regression on a frozen trunk (Alain and Bengio 2016, arXiv 1610.01644, "linear classifier probes"), here for
the Bradley-Terry model and the other targets of `reward_model`. The trunk reads each answer once, without a gradient;
the fit takes seconds. With thousands of comparisons rather than hundreds of thousands it often judges held-out pairs
better than fine-tuning, and only the penalty needs tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from accord_models.loading import Pooling
from accord_trainer.algorithm import Experience, StepContext
from accord_trainer.algorithms.reward_model import RewardModelOptions, RewardModelTraining
from accord_trainer.distributed.world import even_rounds
from accord_trainer.model.optimizer import not_finite
from accord_trainer.model.reward_scorer import Answers, Gathered
from accord_trainer.objectives.probe import deviations, fit

# Options of gradient descent through the trunk, which have no effect here.
UNUSED = (
    "learning_rate", "head_learning_rate", "weight_decay", "adam_epsilon", "warmup_updates", "decay_updates",
    "max_grad_norm", "trainable_layers", "activation_checkpointing", "logits_chunk", "lora_rank", "lora_alpha",
    "lora_targets",
)  # fmt: skip


class RewardProbeOptions(RewardModelOptions):
    """Options of `reward_probe`: those of `reward_model` without gradient descent, and the penalty."""

    penalty: float = Field(
        1000.0, gt=0, description="Half of it times the squared norm of the head, its inputs scaled to deviation 1, "
        "is added to the sum of the examples' losses.",
    )  # fmt: skip
    centring: float = Field(0.0, ge=0, description="Weight of the squared sum of an example's scores.")
    pooling: Pooling | None = Field(
        "mean", description="Input of the head: the mean over the response, or the last token's state."
    )

    @model_validator(mode="after")
    def _refuse_unused(self) -> RewardProbeOptions:
        if unused := [name for name in UNUSED if name in self.model_fields_set]:
            raise ValueError(f"{', '.join(unused)}: no effect, because only the head is fitted; remove the option")
        return self


class RewardProbe(RewardModelTraining):
    """The algorithm `reward_probe`. Every step fits the head to its batch from scratch, so one batch should contain all
    examples."""

    options_type: ClassVar[type[BaseModel]] = RewardProbeOptions
    trains_trunk = False
    options: RewardProbeOptions

    def step_bytes(self, batch: Experience) -> dict[str, int]:
        answers = sum(len(example.responses) for example in batch.preferences)
        return {"batch": 3 * 8 * answers * self.scorer.head.in_features}

    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        answers = self._tokenize(batch.preferences)
        states = self._states(answers, context)
        sizes = [len(states_KD) for states_KD in states]
        head = self.scorer.head

        def loss(scores_MN: Tensor) -> Tensor:
            pieces = zip(scores_MN.split(sizes, dim=1), batch.preferences, strict=True)  # type: ignore[no-untyped-call]
            return torch.stack([self._objective(scores_MK, example) for scores_MK, example in pieces]).sum()

        fitted_MD, rounds_made = fit(
            torch.cat(states), loss, head.out_features, self.options.penalty, deviations(states), context.check_stopped
        )
        if not bool(torch.isfinite(fitted_MD).all()):
            raise not_finite("the fit")
        with torch.no_grad():
            head.weight.copy_(fitted_MD)
            if head.bias is not None:
                head.bias.zero_()
        self.optimizer.updates += 1
        scores = [(fitted_MD @ states_KD.T).float() for states_KD in states]
        return {
            **self._metrics(scores, batch.preferences, answers),
            "fit_evaluations": float(rounds_made),
            "weight_norm": float(fitted_MD.norm()),
            "tokens": float(sum(map(len, answers))),
        }

    @torch.no_grad()
    def _states(self, answers: Sequence[Answers], context: StepContext) -> list[Tensor]:
        """The inputs of the head for every answer, (K, D) per example, float64, the same on all ranks."""
        gathered = Gathered(answers, self.scorer.head.in_features)
        for group in even_rounds(self.scorer.groups(answers, self.options.micro_batch_tokens), self.world):
            context.check_stopped()
            found = self.scorer.states([answers[index] for index in group.items])
            for index, states_KD in zip(group.items, found, strict=True):
                if group.counts:
                    gathered.put(index, states_KD.T)
        return [states_DK.T.double() for states_DK in gathered.all(self.world)]
