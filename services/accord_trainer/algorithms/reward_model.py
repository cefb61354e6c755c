"""Reward-model training on human preferences: pairs, rankings with ties, ratings; one update a step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from accord.errors import FailedPrecondition, InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord_models.loading import load_config, load_reward_model, new_reward_model
from accord_models.tokenizer import load_tokenizer, reading_limit
from accord_trainer.adapters import Adaptable
from accord_trainer.algorithm import AlgorithmState, Experience, Start, StepContext
from accord_trainer.objectives.preference import bradley_terry, centring, plackett_luce, rating_loss
from accord_trainer.optimizer import Group, Optimizer, not_finite
from accord_trainer.options import AlgorithmOptions
from accord_trainer.preference_metrics import preference_metrics
from accord_trainer.scoring import Answers, Scorer, score_all, tokenize


class RewardModelOptions(AlgorithmOptions):
    """Options of `reward_model`; those of every algorithm besides."""

    head_learning_rate: float | None = Field(None, gt=0, description="Of the score head; unset: as the rest.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="The part of pairs taken to be labelled the wrong way."
    )
    centring: float = Field(0.01, ge=0, description="Weight of the squared sum of an example's scores.")
    max_tokens: int = Field(1024, ge=8, description="Longer conversations lose their beginning.")


class RewardModelTraining:
    """The algorithm `reward_model`. A reward model is trained on; a language model or encoder gets a new head."""

    learns_from = "preferences"
    options_type = RewardModelOptions

    def __init__(self, start: Start, options: RewardModelOptions) -> None:
        if start.critic is not None:
            raise InvalidArgument.at("training.critic_init", "a reward model has no critic")
        if start.reference is not None:
            raise InvalidArgument.at("training.reference", "a reward model has no reference")
        self.options = options
        self.compute_dtype = start.compute_dtype
        self.tokenizer = load_tokenizer(start.init)
        model = (
            load_reward_model(start.init) if _is_reward_model(start.init) else new_reward_model(start.init, start.seed)
        )
        self.vocabulary_size = len(self.tokenizer)
        self.max_tokens = min(options.max_tokens, reading_limit(model.config, self.tokenizer))
        self.publish_dtype = start.compute_dtype if options.publish_dtype == "auto" else options.publish_dtype
        self.adaptable = Adaptable(model, options, task=None, seed=start.seed)
        self.scorer = Scorer(
            model, self.adaptable.trunk, self.tokenizer, start.compute_dtype, share=options.share_prefixes
        )
        self.scorer.head.requires_grad_(True)
        head = {id(parameter) for parameter in self.scorer.head.parameters()}
        named = dict(model.named_parameters())
        self.optimizer = Optimizer(
            {
                "model": Group(options.learning_rate, {n: p for n, p in named.items() if id(p) not in head}),
                "head": Group(
                    options.head_learning_rate or options.learning_rate,
                    {n: p for n, p in named.items() if id(p) in head},
                ),
            },
            options,
        )

    def check(self, batch: Experience) -> None:
        """Refuses a batch in which no example has a weight."""
        if sum(map(_weight, batch.preferences)) <= 0:
            raise InvalidArgument.at("chunk.preferences", "every weight is 0; nothing to learn")

    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        answers = self._tokenize(batch.preferences)
        total = sum(map(_weight, batch.preferences))
        scores: list[Tensor] = [torch.empty(0)] * len(answers)
        for group in self.scorer.groups(answers, self.options.micro_batch_tokens):
            context.check_stopped()
            loss = torch.zeros(())
            for index, scores_K in zip(group, self.scorer.scores([answers[i] for i in group]), strict=True):
                example = batch.preferences[index]
                regularised = self._loss(scores_K, example) + self.options.centring * centring(scores_K)
                loss = loss + _weight(example) * regularised
                scores[index] = scores_K.detach()
            if not bool(torch.isfinite(loss)):
                raise not_finite("the loss")
            (loss / total).backward()  # type: ignore[no-untyped-call]
        learning_rate = self.options.learning_rate * self.optimizer.rate_factor()
        norms = self.optimizer.update()
        tokens = float(sum(map(len, answers)))
        return {
            **self._metrics(scores, batch.preferences, answers),
            "grad_norm": norms["model"],
            "lr": learning_rate,
            "tokens": tokens,
        }

    def evaluate(self, batch: Experience, context: StepContext) -> dict[str, float]:
        """Loss (without centring), accuracy overall and by source, calibration, length bias."""
        answers = self._tokenize(batch.preferences)
        scores = score_all(self.scorer, answers, self.options.micro_batch_tokens, context.check_stopped)
        return self._metrics(scores, batch.preferences, answers)

    def state(self) -> AlgorithmState:
        return AlgorithmState(self.optimizer.weights(), self.optimizer.tensors(), {"updates": self.optimizer.updates})

    def load_state(self, state: AlgorithmState) -> None:
        self.optimizer.load(state.weights, state.optimizer, state.scalars["updates"])

    def merged(self) -> PreTrainedModel:
        return self.adaptable.merged()

    def save_adapter(self, folder: Path) -> None:
        raise FailedPrecondition("reward models are published merged", reason="NO_ADAPTER")

    def _tokenize(self, examples: Sequence[trainer_v1.PreferenceExample]) -> list[Answers]:
        return [tokenize(self.tokenizer, example, self.max_tokens) for example in examples]

    def _loss(self, scores_K: Tensor, example: trainer_v1.PreferenceExample) -> Tensor:
        """The example's loss as a scalar, unweighted."""
        if example.HasField("ratings"):
            return rating_loss(scores_K, torch.tensor(list(example.ratings.values), dtype=scores_K.dtype))
        ranks = list(example.ranks.values)
        if len(ranks) > 2:
            return plackett_luce(scores_K, ranks)
        first, second = (0, 1) if ranks[0] <= ranks[1] else (1, 0)
        return bradley_terry(
            scores_K[first],
            scores_K[second],
            margin_N=example.margin,
            tie_N=torch.tensor(ranks[0] == ranks[1]),
            label_smoothing=self.options.label_smoothing,
        )

    def _metrics(
        self, scores: list[Tensor], examples: Sequence[trainer_v1.PreferenceExample], answers: list[Answers]
    ) -> dict[str, float]:
        losses = [float(self._loss(s, e)) * _weight(e) for s, e in zip(scores, examples, strict=True)]
        total = sum(map(_weight, examples))
        found = preference_metrics(scores, examples, [[len(rest) for rest in one.rest] for one in answers])
        return {"loss": sum(losses) / total if total else 0.0, **found}


def _weight(example: trainer_v1.PreferenceExample) -> float:
    return example.weight if example.HasField("weight") else 1.0


def _is_reward_model(folder: Path) -> bool:
    """Whether the folder holds a sequence classifier with one output, by its config."""
    load_config(folder)
    config = json.loads((folder / "config.json").read_text())
    classifier = any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or [])
    return classifier and len(config.get("id2label", {"0": "", "1": ""})) == 1
