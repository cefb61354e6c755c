"""Reward-model training on human preferences: pairs, rankings with ties, ratings; one update a step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor
from transformers import PreTrainedModel

from accord.errors import FailedPrecondition, InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord_models.loading import (
    Pooling,
    ensemble_size,
    load_config,
    load_reward_model,
    new_reward_model,
    pooling_of,
    reward_head,
)
from accord_models.tokenizer import load_tokenizer, reading_limit
from accord_trainer.algorithm import AlgorithmOptions, AlgorithmState, Experience, Start, StepContext
from accord_trainer.data.bootstrap import Bootstrap, bootstrap_weights
from accord_trainer.distributed.world import even_rounds
from accord_trainer.metrics.preferences import annotator_accuracy, preference_metrics
from accord_trainer.model.optimizer import Group, Optimizer, not_finite
from accord_trainer.model.packing import Row, buckets
from accord_trainer.model.reward_scorer import Answers, Gathered, RewardScorer, score_all, tokenize
from accord_trainer.model.trunk import TrainableModel, prepare_blocks
from accord_trainer.objectives.preference import bradley_terry, centring, plackett_luce, rating_loss


class RewardModelOptions(AlgorithmOptions):
    """Options of `reward_model`, in addition to those of every algorithm."""

    head_learning_rate: float | None = Field(
        None, gt=0, description="Learning rate of the score head; unset: learning_rate."
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="Fraction of pairs that is assumed to be labelled wrongly."
    )
    centring: float = Field(0.01, ge=0, description="Weight of the squared sum of an example's scores.")
    ensemble: int = Field(
        1, ge=1, le=64, description="Heads on the shared trunk, each with its own resample of the examples."
    )
    bootstrap: Bootstrap = Field("poisson", description="How an ensemble's members resample the examples.")
    pooling: Pooling | None = Field(
        None, description="Input of the head: the last token's state, or the mean over the response; unset: last."
    )
    blocks: int = Field(0, ge=0, description="Keep only this many lower blocks of the language model; 0: all.")
    max_tokens: int = Field(1024, ge=8, description="Longer conversations lose their beginning.")


class RewardModelTraining:
    """The algorithm `reward_model`. Continues a reward model; a language model or encoder gets a new head."""

    learns_from = "preferences"
    options_type: ClassVar[type[BaseModel]] = RewardModelOptions
    # If false, only the head is trained.
    trains_trunk: ClassVar[bool] = True

    def __init__(self, start: Start, options: RewardModelOptions) -> None:
        if start.critic is not None:
            raise InvalidArgument.at("training.critic_init", "a reward model has no critic")
        if start.reference is not None:
            raise InvalidArgument.at("training.reference", "a reward model has no reference")
        self.options = options
        self.compute_dtype = start.compute_dtype
        self.tokenizer = load_tokenizer(start.init)
        self.world = start.world
        self.seed = start.seed
        model = _model(start, options, "float32" if self.trains_trunk else start.compute_dtype)
        reward_head(model).float()
        self.vocabulary_size = len(self.tokenizer)
        self.max_tokens = min(options.max_tokens, reading_limit(model.config, self.tokenizer))
        self.publish_dtype = start.compute_dtype if options.publish_dtype == "auto" else options.publish_dtype
        self.trainable = TrainableModel(model, options, task=None, seed=start.seed)
        self.scorer = RewardScorer(
            model, self.trainable.trunk, self.tokenizer, start.compute_dtype, share=options.share_prefixes
        )
        self.scorer.head.requires_grad_(True)
        torch.nn.Module.to(model, start.device)
        prepare_blocks(self.trainable.trunk.blocks[self.trainable.trunk.frozen :], options, start.device)
        if self.trains_trunk:
            self.scorer.passes = start.world.place([model], start.compute_dtype, self.trainable.trunk.blocks)
        else:
            self.trainable.trunk.module.requires_grad_(False)
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
            start.world,
        )

    def check(self, batch: Experience) -> None:
        """Refuses a batch without a weight above 0."""
        if sum(map(_weight, batch.preferences)) <= 0:
            raise InvalidArgument.at("chunk.preferences", "has no example with a weight above 0")

    def step_bytes(self, batch: Experience) -> dict[str, int]:
        rows = [Row(one.common, one.rest, ()) for one in self._tokenize(batch.preferences)]
        groups = buckets(rows, self.options.micro_batch_tokens)
        activations = self.trainable.trunk.activation_bytes(groups, self.options, self.compute_dtype)
        return {"weights": self.state().update_bytes(), "activations": activations}

    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        answers = self._tokenize(batch.preferences)
        total = sum(map(_weight, batch.preferences))
        gathered = Gathered(answers, self.scorer.members)
        for group in even_rounds(self.scorer.groups(answers, self.options.micro_batch_tokens), self.world):
            context.check_stopped()
            loss = torch.zeros(())
            for index, scores_MK in zip(
                group.items, self.scorer.scores([answers[i] for i in group.items]), strict=True
            ):
                if not group.counts:
                    loss = loss + torch.where(torch.isfinite(scores_MK), scores_MK, 0.0).sum() * 0.0
                    continue
                loss = loss + self._objective(scores_MK, batch.preferences[index])
                gathered.put(index, scores_MK)
            (loss / total).backward()  # type: ignore[no-untyped-call]
        scores = gathered.all(self.world)
        # From the gathered scores, so that all ranks refuse together.
        if not all(bool(torch.isfinite(scores_MK).all()) for scores_MK in scores):
            raise not_finite("the loss")
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
        """Loss (without centring), accuracy overall, by source and by annotator, calibration, length bias."""
        answers = self._tokenize(batch.preferences)
        scores = score_all(self.scorer, answers, self.options.micro_batch_tokens, self.world, context.check_stopped)
        return {
            **self._metrics(scores, batch.preferences, answers),
            **annotator_accuracy(scores, batch.preferences),
        }

    def flops(self) -> float:
        return float(self.world.sum(torch.tensor(self.scorer.costs.done, dtype=torch.float64)))

    def state(self) -> AlgorithmState:
        return AlgorithmState(self.optimizer.weights(), self.optimizer.tensors(), {"updates": self.optimizer.updates})

    def load_state(self, state: AlgorithmState) -> None:
        self.optimizer.load(state.weights, state.optimizer, state.scalars["updates"])

    def merged(self) -> PreTrainedModel:
        return self.trainable.merged()

    def save_adapter(self, folder: Path) -> None:
        raise FailedPrecondition(
            "reward models have no separate adapter; publish the merged model", reason="NO_ADAPTER"
        )

    def _tokenize(self, examples: Sequence[trainer_v1.PreferenceExample]) -> list[Answers]:
        return [tokenize(self.tokenizer, example, self.max_tokens) for example in examples]

    def _objective(self, scores_MK: Tensor, example: trainer_v1.PreferenceExample) -> Tensor:
        """The example's contribution to the loss: the mean over members, each weighted by its resample."""
        resample_M = bootstrap_weights(example, len(scores_MK), self.seed, self.options.bootstrap)
        regularised_M = self._loss(scores_MK, example) + self.options.centring * centring(scores_MK)
        return _weight(example) * (resample_M * regularised_M).mean()

    def _loss(self, scores_K: Tensor, example: trainer_v1.PreferenceExample) -> Tensor:
        """The example's loss, unweighted, (...) for scores (..., K)."""
        if example.HasField("ratings"):
            return rating_loss(scores_K, torch.tensor(list(example.ratings.values), dtype=scores_K.dtype))
        ranks = list(example.ranks.values)
        if len(ranks) > 2:
            return plackett_luce(scores_K, ranks)
        first, second = (0, 1) if ranks[0] <= ranks[1] else (1, 0)
        return bradley_terry(
            scores_K[..., first],
            scores_K[..., second],
            margin_N=example.margin,
            tie_N=torch.tensor(ranks[0] == ranks[1]),
            label_smoothing=self.options.label_smoothing,
        )

    def _metrics(
        self, scores: list[Tensor], examples: Sequence[trainer_v1.PreferenceExample], answers: list[Answers]
    ) -> dict[str, float]:
        losses = [float(self._loss(s.mean(0), e)) * _weight(e) for s, e in zip(scores, examples, strict=True)]
        total = sum(map(_weight, examples))
        found = preference_metrics(scores, examples, [one.lengths for one in answers])
        return {"loss": sum(losses) / total if total else 0.0, **found}


def _weight(example: trainer_v1.PreferenceExample) -> float:
    return example.weight if example.HasField("weight") else 1.0


def _model(start: Start, options: RewardModelOptions, dtype: str) -> PreTrainedModel:
    """The reward model in `start.init` with its heads, or its language model with new heads; weights in `dtype`."""
    if not _is_reward_model(start.init):
        pooling = options.pooling or "last"
        return new_reward_model(
            start.init, start.seed, dtype, ensemble=options.ensemble, pooling=pooling, blocks=options.blocks
        )
    config = load_config(start.init)
    found = {"ensemble": ensemble_size(config), "pooling": pooling_of(config), "blocks": config.num_hidden_layers}
    wanted = {"ensemble": options.ensemble, "pooling": options.pooling, "blocks": options.blocks or None}
    for name, value in wanted.items():
        if value is not None and value != found[name]:
            raise InvalidArgument.at(
                f"training.options.{name}", f"is {value}, but the reward model in training.init has {found[name]}"
            )
    return load_reward_model(start.init, dtype, members=True)


def _is_reward_model(folder: Path) -> bool:
    """Whether the config in the folder is that of a sequence classifier with one output, or of an ensemble."""
    heads = ensemble_size(load_config(folder))
    config = json.loads((folder / "config.json").read_text())
    classifier = any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or [])
    return classifier and len(config.get("id2label", {"0": "", "1": ""})) == heads
