"""The step that on-policy policy-gradient algorithms share (Schulman et al. 2017; Ziegler et al. 2019 on language).

1. The old and reference log-probabilities (and values) of the batch are computed and frozen.
2. Rewards: a KL penalty at each token, and the score at the last.
3. Advantages. The algorithms differ only here.
4. Epochs over shuffled minibatches; each update descends the sum of the terms that `losses` names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from accord.errors import FailedPrecondition, InvalidArgument
from accord_trainer.algorithm import AlgorithmOptions, AlgorithmState, Experience, Start, StepContext
from accord_trainer.algorithms.policy_training import Means, PolicyTraining
from accord_trainer.algorithms.step_targets import (
    AdvantageInputs,
    Advantages,
    OldPolicy,
    StepTargets,
    Trajectories,
    penalised_score,
    target_metrics,
    temperature,
    trajectories,
)
from accord_trainer.distributed.world import even_rounds
from accord_trainer.model.optimizer import not_finite
from accord_trainer.model.packing import Row, buckets, make_rows
from accord_trainer.model.policy import Lower, Outputs
from accord_trainer.objectives.advantages import masked_mean, masked_sum, token_rewards
from accord_trainer.objectives.policy_loss import (
    Bound,
    KlController,
    Level,
    Measure,
    PolicyTerms,
    accepted,
    importance_weights,
    k1,
    k2,
    k3,
    ppo_policy_terms,
    token_weights,
)

# Float tensors of (B, R) that a step holds: old, reference, entropy, values, rewards, advantages, importance, returns.
STEP_TENSORS = 8
LOSS_KL = {"k2": k2, "k3": k3}
# Terms of the loss whose mean over the tokens is a metric.
REPORTED = {"value_loss", "kl_loss"}


class PolicyGradientOptions(AlgorithmOptions):
    """Options of ppo, grpo, rloo, reinforce++ and dapo, in addition to those of every algorithm. Each algorithm sets
    its own defaults."""

    epochs: int = Field(2, ge=1, description="Passes over the batch.")
    minibatch_size: int = Field(16, ge=1, description="Approximate number of samples for each optimizer update.")
    max_row_tokens: int = Field(
        1024, ge=1, description="Maximum tokens of a row that responses to one prompt are packed into."
    )
    kl_coefficient: float = Field(
        0.05, ge=0, description="Initial penalty in the reward for each nat of KL to the reference."
    )
    kl_target: float | None = Field(
        None,
        gt=0,
        description="Target of the KL per response, in nats, that the coefficient is adapted to; unset: fixed.",
    )
    kl_horizon: float = Field(10_000.0, gt=0, description="Episodes over which the coefficient adapts.")
    kl_loss_coefficient: float = Field(
        0.0, ge=0, description="Weight of the KL to the reference as a term of the loss."
    )
    kl_loss_estimator: Literal["k2", "k3"] = Field("k3", description="Estimator of the KL in that term.")
    clip: float = Field(0.2, gt=0, description="Lower and upper bound of the probability ratio's distance from 1.")
    clip_high: float | None = Field(None, gt=0, description="A different upper bound; unset: `clip`.")
    dual_clip: float | None = Field(None, gt=1, description="Floor of the objective for negative advantages.")
    loss_aggregation: Literal["token", "sequence", "constant"] = Field(
        "token",
        description="Mean over the minibatch's tokens; mean over responses of their token means; or sum over tokens "
        "divided by responses times max_new_tokens, so that length has no influence.",
    )
    entropy_coefficient: float = Field(0.0, ge=0, description="Bonus for each nat of entropy.")
    missing_eos_penalty: float = Field(
        0.0, ge=0, description="Subtracted from the score of a response that was cut off."
    )
    missing_eos_score: float | None = Field(
        None, description="Replaces the score of a response that was cut off; unset: keep its score."
    )
    importance_cap: float | None = Field(
        2.0, gt=0, description="Cap of each token's importance weight, old / rollout policy; null: no weights."
    )
    importance_bound: Bound = Field(
        "truncate",
        description="truncate: a weight above the cap becomes the cap. mask: a weight above the cap or below 1 / cap "
        "becomes 0.",
    )
    importance_level: Level = Field(
        "token", description="Use each token's weight, or the product over its whole response."
    )
    rejection_cap: float | None = Field(
        None,
        gt=1,
        description="Leave out responses whose ratio old / rollout is outside 1 / cap .. cap; unset: keep all.",
    )
    rejection_measure: Measure = Field(
        "product",
        description="Ratio of a response: the product over its tokens, their geometric mean, or the ratio of the token "
        "that differs most.",
    )
    kl_stop: float | None = Field(None, gt=0, description="Stop the epochs when a minibatch's approx_kl exceeds this.")


@dataclass(frozen=True)
class LossTerm:
    """One term of the loss: a sum over the tokens of a pass, and its coefficient."""

    total: Tensor
    coefficient: float = 1.0


class PolicyGradient(PolicyTraining):
    """The common part of ppo, grpo, rloo, reinforce++ and dapo. A subclass provides `compute_advantages` and its
    options."""

    learns_from: ClassVar[Literal["samples", "preferences"]] = "samples"
    options_type: ClassVar[type[PolicyGradientOptions]] = PolicyGradientOptions
    # The minimum number of responses to a prompt for computing advantages.
    least_group: ClassVar[int] = 1

    def __init__(self, start: Start, options: Any) -> None:
        super().__init__(start, options)
        self.kl = KlController(options.kl_coefficient, options.kl_target, options.kl_horizon)
        if options.importance_bound == "mask" and options.importance_cap is not None and options.importance_cap <= 1:
            raise InvalidArgument.at("training.options.importance_cap", "must be above 1 if importance_bound is mask")

    def compute_advantages(self, data: Trajectories, inputs: AdvantageInputs) -> Advantages:
        """The advantages of a batch."""
        raise NotImplementedError

    def score(self, data: Trajectories) -> Tensor:
        """The scores in the rewards, (B,)."""
        return penalised_score(data, self.options.missing_eos_penalty, self.options.missing_eos_score)

    def value_loss(self, out: Outputs, step_targets: StepTargets, mask_BR: Tensor) -> Tensor | None:
        """The weighted sum of the critic's loss over the tokens of `mask_BR`; None without a critic."""
        return None

    def warming(self, context: StepContext) -> bool:
        """Whether only the critic learns in this step."""
        return False

    def check(self, batch: Experience) -> None:
        """Refuses samples whose log-probabilities are not those of softmax(logits / temperature), temperature above 0,
        and batches without a group of responses to one prompt."""
        sizes: dict[tuple[int, ...], int] = {}
        for scored in batch.samples:
            prompt = tuple(scored.sample.prompt_token_ids)
            sizes[prompt] = sizes.get(prompt, 0) + 1
        for i, scored in enumerate(batch.samples):
            at, sampling = f"chunk.samples[{i}].sample", scored.sample.sampling
            if temperature(scored.sample) <= 0:
                raise InvalidArgument.at(
                    f"{at}.sampling.temperature", "is greedy; training needs sampled responses: set it above 0"
                )
            if (sampling.HasField("top_p") and sampling.top_p < 1) or (
                sampling.HasField("top_k") and sampling.top_k > 0
            ):
                raise InvalidArgument.at(f"{at}.sampling", "must not set top_p or top_k for training")
            length = len(scored.sample.prompt_token_ids) + len(scored.sample.response_token_ids)
            if length > self.policy.positions:
                raise InvalidArgument.at(
                    f"{at}.response_token_ids",
                    f"has {length} tokens with the prompt; the model reads at most {self.policy.positions}",
                )
        # A group whose other responses were lost has no advantage, but the step can still learn from the rest.
        if max(sizes.values(), default=0) < self.least_group:
            raise InvalidArgument.at(
                "chunk.samples",
                "has one response to each prompt, but the baseline comes from the other responses; use "
                f"{self.least_group} or more samples a prompt",
            )

    def step_bytes(self, batch: Experience) -> dict[str, int]:
        data = trajectories(batch.samples)
        found = {**super().step_bytes(batch), **self.passes_bytes(self._rows(data))}
        return {**found, "batch": found["batch"] + STEP_TENSORS * data.mask_BR.numel() * 4}

    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        data = trajectories(batch.samples)
        rows = self._rows(data)
        lower = self._lower(rows, context)
        step_targets = self._step_targets(data, rows, lower, context)
        if step_targets.accepted_B is not None and not bool(step_targets.accepted_B.any()):
            raise FailedPrecondition(
                f"every response was rejected: the policy and the one that sampled them differ by more than a factor "
                f"of {self.options.rejection_cap} ({self.options.rejection_measure}). Raise rejection_cap, use another "
                "rejection_measure, or lower max_staleness",
                reason="ALL_REJECTED",
            )
        if not bool(step_targets.mask_BR.any()):
            raise FailedPrecondition(
                "rewards are equal within each group of responses to one prompt, so there is nothing to learn. "
                "Use other prompts, more samples a prompt, or a finer score",
                reason="NO_SIGNAL",
            )
        means = Means()
        stopped = False
        for _ in range(self.options.epochs):
            for minibatch in self._minibatches(rows, context.generator):
                if not stopped:
                    approx_kl = self._update(data, step_targets, minibatch, lower, means, context)
                    stopped = self.options.kl_stop is not None and approx_kl > self.options.kl_stop
        metrics = {
            **self._metrics(data, step_targets),
            **means.result(self.world),
            "kl_coefficient": self.kl.coefficient,
        }
        self.kl = self.kl.after(metrics["kl_k1"], len(data.responses))
        return metrics

    def evaluate(self, batch: Experience, context: StepContext) -> dict[str, float]:
        """The metrics of the batch under the current policy."""
        data = trajectories(batch.samples)
        rows = self._rows(data)
        lower = self._lower(rows, context)
        return self._metrics(data, self._step_targets(data, rows, lower, context))

    def state(self) -> AlgorithmState:
        state = super().state()
        state.scalars["kl_coefficient"] = self.kl.coefficient
        return state

    def load_state(self, state: AlgorithmState) -> None:
        super().load_state(state)
        self.kl = KlController(state.scalars["kl_coefficient"], self.kl.target, self.kl.horizon)

    def _rows(self, data: Trajectories) -> list[Row]:
        return make_rows(
            data.prompts,
            data.responses,
            share=self.policy.share,
            max_tokens=self.options.max_row_tokens,
            max_members=self.options.minibatch_size,
        )

    def _lower(self, rows: list[Row], context: StepContext) -> Lower:
        """The frozen blocks' output for all rows, kept for the step. With several ranks nothing is kept, since a rank
        does not know in advance which rows it will process."""
        if self.world.size > 1:
            return {}
        return self.policy.lower(rows, self.options.micro_batch_tokens, context.check_stopped)

    def _metrics(self, data: Trajectories, step_targets: StepTargets) -> dict[str, float]:
        left_out = data.mask_BR.any(1) & ~step_targets.mask_BR.any(1)
        found = {**target_metrics(data, step_targets), "samples_dropped": float(left_out.sum())}
        if step_targets.accepted_B is not None:
            found["samples_rejected"] = float((~step_targets.accepted_B).sum())
        if step_targets.importance_BR is not None:
            bound = 0.0 if self.options.importance_bound == "mask" else self.options.importance_cap
            found["importance_bounded"] = float(
                masked_mean((step_targets.importance_BR == bound).float(), data.mask_BR)
            )
        return found

    def _step_targets(self, data: Trajectories, rows: list[Row], lower: Lower, context: StepContext) -> StepTargets:
        """Everything that stays frozen over the epochs."""
        old = self._old(data, rows, lower, context)
        score_B, mask_BR = self.score(data), data.mask_BR
        penalty_BR = k1(old.logprobs_BR, old.reference_logprobs_BR)
        rewards_BR = token_rewards(score_B, penalty_BR, mask_BR, kl_coefficient=self.kl.coefficient)
        advantages = self.compute_advantages(data, AdvantageInputs(score_B, rewards_BR, old))
        options, importance_BR, accepted_B = self.options, None, None
        both = old.logprobs_BR, data.rollout_logprobs_BR, mask_BR
        if options.importance_cap is not None:
            importance_BR = importance_weights(
                *both, options.importance_cap, bound=options.importance_bound, level=options.importance_level
            )
        if options.rejection_cap is not None:
            accepted_B = accepted(*both, options.rejection_cap, options.rejection_measure)
        for keep_B in (advantages.keep_B, accepted_B):
            if keep_B is not None:
                mask_BR = mask_BR & keep_B[:, None]
        return StepTargets(
            old, rewards_BR, advantages.advantages_BR, advantages.returns_BR, mask_BR, importance_BR, accepted_B
        )

    @torch.no_grad()
    def _old(self, data: Trajectories, rows: list[Row], lower: Lower, context: StepContext) -> OldPolicy:
        """Each rank fills in its own rows and leaves the others 0, so that the sum over the ranks has all rows."""
        old_BR, reference_BR, entropy_BR, values_BR = (torch.zeros(data.mask_BR.shape) for _ in range(4))
        final_value_B = torch.zeros(len(data.responses))
        for turn in even_rounds(buckets(rows, self.options.micro_batch_tokens), self.world):
            context.check_stopped()
            out = self.policy.outputs(turn.items, data.temperature_B, data.width, lower, entropy=True)
            members, reference = self.policy.reference_logprobs(turn.items, data.temperature_B, data.width, lower)
            if not turn.counts:
                continue
            old_BR[out.members], values_BR[out.members] = out.logprobs_BR, out.values_BR
            final_value_B[out.members] = out.final_value_B
            if out.entropy_BR is not None:
                entropy_BR[out.members] = out.entropy_BR
            reference_BR[members] = reference
        return OldPolicy(*map(self.world.sum, (old_BR, reference_BR, entropy_BR, values_BR, final_value_B)))

    def _minibatches(self, rows: list[Row], generator: torch.Generator) -> list[list[Row]]:
        """The rows, shuffled and split into parts of about `minibatch_size` samples; prompts stay whole."""
        total = sum(len(row.members) for row in rows)
        parts: list[list[Row]] = [[] for _ in range(min(len(rows), max(1, round(total / self.options.minibatch_size))))]
        seen = 0
        for index in torch.randperm(len(rows), generator=generator).tolist():
            parts[min(seen * len(parts) // total, len(parts) - 1)].append(rows[index])
            seen += len(rows[index].members)
        return [part for part in parts if part]

    def _update(
        self,
        data: Trajectories,
        step_targets: StepTargets,
        minibatch: list[Row],
        lower: Lower,
        means: Means,
        context: StepContext,
    ) -> float:
        """One optimizer update; returns its approx_kl. The loss is divided by the tokens of the whole minibatch, so
        that cutting it into micro-batches changes nothing."""
        options, warming = self.options, self.warming(context)
        everyone = [member for row in minibatch for member in row.members]
        tokens = int(step_targets.mask_BR[everyone].sum())
        if not tokens:
            return 0.0
        weights_B1 = torch.zeros(len(data.responses), 1)
        chosen_B1 = token_weights(step_targets.mask_BR[everyone], data.limit_B[everyone], options.loss_aggregation)
        weights_B1[everyone] = 1.0 if chosen_B1 is None else chosen_B1
        approx_kl, odd = 0.0, False
        for turn in even_rounds(buckets(minibatch, options.micro_batch_tokens), self.world):
            context.check_stopped()
            out = self.policy.outputs(
                turn.items,
                data.temperature_B,
                data.width,
                lower,
                entropy=options.entropy_coefficient > 0,
                detach_values=warming,
            )
            mask_BR, weight_B1 = step_targets.mask_BR[out.members] & turn.counts, weights_B1[out.members]
            clipped = self._clipped_objective(out, step_targets, mask_BR, weight_B1)
            losses = self.losses(out, step_targets, mask_BR, weight_B1, clipped, warming=warming)
            loss = sum((term.coefficient * term.total for term in losses.values()), torch.zeros(()))
            odd = odd or not bool(torch.isfinite(loss))
            (loss / tokens).backward()  # type: ignore[no-untyped-call]
            part = int(mask_BR.sum())
            for name in REPORTED & losses.keys():
                means.add(name, float(losses[name].total.detach()), part)
            means.add("policy_loss", float(clipped.loss.detach()), part)
            means.add("approx_kl", float(clipped.approx_kl), part)
            means.add("clip_fraction", float(clipped.clipped), part)
            means.add("ratio_mean", float(clipped.ratio), part)
            means.largest("ratio_max", float(clipped.ratio_max))
            approx_kl += float(clipped.approx_kl) / tokens
        # After the passes, so that all ranks refuse together.
        if self.world.max(float(odd)):
            raise not_finite("the loss")
        means.add("lr", options.learning_rate * self.optimizer.rate_factor(), 1)
        norms = self.optimizer.update()
        means.add("grad_norm", norms["policy"], 1)
        if "value" in norms:
            means.add("value_grad_norm", norms["value"], 1)
        return float(self.world.sum(torch.tensor(approx_kl)))

    def losses(
        self,
        out: Outputs,
        step_targets: StepTargets,
        mask_BR: Tensor,
        weight_B1: Tensor,
        clipped: PolicyTerms,
        *,
        warming: bool,
    ) -> dict[str, LossTerm]:
        """The terms of the loss by name, in the order in which they are added up. While the critic warms up, its term
        is the only one. `weight_B1` are the aggregation weights of the tokens of each response of `out`."""
        options = self.options
        terms: dict[str, LossTerm] = {} if warming else {"policy_loss": LossTerm(clipped.loss)}
        value_loss = self.value_loss(out, step_targets, mask_BR)
        if value_loss is not None:
            terms["value_loss"] = LossTerm(value_loss, options.value_coefficient)
        if warming:
            return terms
        if out.entropy_BR is not None:
            entropy = masked_sum(out.entropy_BR * weight_B1, mask_BR)
            terms["entropy"] = LossTerm(entropy, -options.entropy_coefficient)
        if options.kl_loss_coefficient:
            reference_BR = step_targets.old.reference_logprobs_BR[out.members]
            kl_BR = LOSS_KL[options.kl_loss_estimator](torch.where(mask_BR, out.logprobs_BR, 0.0), reference_BR)
            terms["kl_loss"] = LossTerm(masked_sum(kl_BR * weight_B1, mask_BR), options.kl_loss_coefficient)
        return terms

    def _clipped_objective(
        self, out: Outputs, step_targets: StepTargets, mask_BR: Tensor, weight_B1: Tensor
    ) -> PolicyTerms:
        """The clipped policy loss of a pass, with the figures that describe it."""
        options = self.options
        importance_BR = weight_B1.expand(mask_BR.shape)
        if step_targets.importance_BR is not None:
            importance_BR = importance_BR * step_targets.importance_BR[out.members]
        return ppo_policy_terms(
            out.logprobs_BR,
            step_targets.old.logprobs_BR[out.members],
            step_targets.advantages_BR[out.members],
            mask_BR,
            clip_low=options.clip,
            clip_high=options.clip if options.clip_high is None else options.clip_high,
            dual_clip=options.dual_clip,
            importance_BR=importance_BR,
        )
