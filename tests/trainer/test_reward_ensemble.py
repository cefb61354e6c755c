"""Ensembles of reward models: resampling, the published folder, the mean head, metrics, and division over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tests.support.trainer import TINY, pairs
from torch import Tensor

from accord.errors import InvalidArgument
from accord_models.loading import load_reward_model, reward_head
from accord_models.publishing import save_model
from accord_trainer.algorithm import Experience, Start, StepContext
from accord_trainer.algorithms.reward_model import RewardModelOptions, RewardModelTraining
from accord_trainer.data.bootstrap import bootstrap_weights
from accord_trainer.distributed.world import Alone, T, World
from accord_trainer.metrics.preferences import preference_metrics
from accord_trainer.objectives.preference import bradley_terry, plackett_luce, rating_loss


class OneOf(Alone):
    """A rank that computes its part and sees nothing of the others': what it leaves out is 0."""

    def __init__(self, rank: int, size: int, most: float) -> None:
        self.rank, self.size, self._most = rank, size, most

    def mine(self, items: Sequence[T]) -> list[T]:
        return list(items)[self.rank :: self.size]

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor

    def max(self, value: float) -> float:
        return max(value, self._most)


def make(folder: Path, world: World | None = None, **options: object) -> RewardModelTraining:
    start = Start(folder, None, None, True, seed=0, compute_dtype="float32", world=world or Alone())
    return RewardModelTraining(start, RewardModelOptions.model_validate({**TINY, **options}))


def context() -> StepContext:
    return StepContext(0, torch.Generator().manual_seed(0), lambda: None)


def test_the_mean_head_of_a_published_ensemble_scores_as_its_members_do_on_average(
    tiny_folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    training = make(tiny_folder, ensemble=3)
    training.step(Experience([], pairs(4)), context())
    save_model(training.merged(), training.tokenizer, tmp_path / "ensemble", "float32")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "ensemble")
    assert (plain.config.num_labels, plain.config.accord_ensemble) == (3, 3)
    ids = torch.tensor([[5, 6, 7, 8]])
    members = load_reward_model(tmp_path / "ensemble", members=True)(input_ids=ids).logits
    mean = load_reward_model(tmp_path / "ensemble")
    assert members.shape == (1, 3)
    assert members.std() > 1e-3
    assert torch.allclose(mean(input_ids=ids).logits, members.mean(1, keepdim=True), atol=1e-6)
    assert torch.equal(reward_head(plain).weight, reward_head(training.trainable.model).weight)
    again = make(tmp_path / "ensemble", ensemble=3).evaluate(Experience([], pairs(4)), context())
    assert again == pytest.approx(training.evaluate(Experience([], pairs(4)), context()), abs=1e-5)
    with pytest.raises(InvalidArgument) as error:
        make(tmp_path / "ensemble")
    assert error.value.violations[0].field == "training.options.ensemble"


def test_resamples_are_repeatable_differ_between_members_and_have_mean_one() -> None:
    examples = pairs(400)
    for kind in ("poisson", "double_or_nothing"):
        drawn = torch.stack([bootstrap_weights(one, 4, 1, kind) for one in examples])  # type: ignore[arg-type]
        assert torch.equal(drawn[0], bootstrap_weights(examples[0], 4, 1, kind))  # type: ignore[arg-type]
        assert drawn.mean() == pytest.approx(1, abs=0.1)  # deviation of the mean: 1 / sqrt(1600)
        assert drawn.var() == pytest.approx(1, abs=0.2)
        assert torch.corrcoef(drawn.T).triu(1).abs().max() < 0.2
    examples[0].weight, before = 0.5, bootstrap_weights(examples[0], 4, 1, "poisson")
    assert torch.equal(bootstrap_weights(examples[0], 4, 1, "poisson"), before)
    assert bootstrap_weights(examples[0], 1, 1, "poisson").tolist() == [1.0]


def test_a_member_learns_nothing_from_what_is_not_in_its_resample(tiny_folder: Path) -> None:
    examples = pairs(12)
    drawn = torch.stack([bootstrap_weights(one, 2, 0, "poisson") for one in examples])
    chosen = next(i for i, row in enumerate(drawn.tolist()) if row[0] == 0 and row[1] > 0)
    training = make(tiny_folder, ensemble=2, weight_decay=0.0)
    before = training.scorer.head.weight.detach().clone()
    training.step(Experience([], [examples[chosen]]), context())
    moved = (training.scorer.head.weight.detach() - before).abs().sum(1)
    assert moved[0] == 0 < moved[1]


def test_ensemble_metrics_by_hand() -> None:
    (pair,) = pairs(1)  # the first is better
    # Differences 2, 4, -3: mean 1, and one head of three orders them otherwise.
    scores = [torch.tensor([[2.0, 0.0], [4.0, 0.0], [-3.0, 0.0]])]
    found = preference_metrics(scores, [pair], [[3, 5]])
    assert (found["accuracy"], found["difference_mean"], found["longer_accuracy"]) == (1.0, 1.0, 0.0)
    assert found["disagreement"] == pytest.approx(1 / 3)
    assert found["uncertainty"] == pytest.approx((26 / 3) ** 0.5 / 2)  # sqrt(((1 + 9 + 16) / 3)) and 0
    pair.ranks.values[:] = [0, 0]
    tied = preference_metrics([torch.tensor([[1.0, 1.0]])], [pair], [[3, 3]])
    assert tied == {"score_mean": 1.0, "score_std": 0.0, "pairs": 0.0}


def test_losses_of_members_are_those_of_each_alone_and_their_gradients_right() -> None:
    scores = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ratings = torch.tensor([0.0, 0.3, 1.0, 0.5], dtype=torch.float64)
    for ranks in ([0, 1, 2, 3], [1, 0, 1, 1], [0, 0, 0, 0]):
        alone = torch.stack([plackett_luce(row, ranks) for row in scores])
        assert torch.allclose(plackett_luce(scores, ranks), alone)
        assert torch.autograd.gradcheck(lambda s, ranks=ranks: plackett_luce(s, ranks), (scores,))
    assert torch.allclose(rating_loss(scores, ratings), torch.stack([rating_loss(row, ratings) for row in scores]))
    assert torch.autograd.gradcheck(lambda s: rating_loss(s, ratings), (scores,))
    tied = torch.tensor([False, True, False])
    assert torch.autograd.gradcheck(
        lambda s: bradley_terry(s[:, 0], s[:, 1], margin_N=0.5, tie_N=tied, label_smoothing=0.1), (scores,)
    )


def test_gradients_of_two_ranks_add_up_to_those_of_one(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[dict[str, Tensor]] = []
    passes: list[int] = []
    batch = Experience([], pairs(5))
    for world in (Alone(), OneOf(0, 2, 3), OneOf(1, 2, 3)):
        training = make(tiny_folder, world, ensemble=2, micro_batch_tokens=1)
        calls: list[int] = []
        forward = training.scorer.scores
        monkeypatch.setattr(training.scorer, "scores", lambda a, f=forward, c=calls: (c.append(1), f(a))[1])

        def keep(training: RewardModelTraining = training) -> dict[str, float]:
            named = training.trainable.model.named_parameters()
            found.append({name: p.grad.clone() for name, p in named if p.grad is not None})
            return {"model": 0.0, "head": 0.0}

        monkeypatch.setattr(training.optimizer, "update", keep)
        training.step(batch, context())
        passes.append(len(calls))
    assert passes == [5, 3, 3]  # the second rank has two groups and one padding pass
    for name, whole in found[0].items():
        assert torch.allclose(found[1][name] + found[2][name], whole, atol=1e-6), name
