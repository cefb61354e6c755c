"""Where tensors live: models and what they are given on the chosen device, everything after them on the CPU.

There is no GPU in these tests. Tensors of the device `meta` have shapes and a device but no content, and a watch over
every operation refuses those that mix devices; so what is shown is the placement, not that a GPU computes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.trainer import TINY, pairs, rollout
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from accord.errors import FailedPrecondition
from accord_trainer.algorithm import Start
from accord_trainer.algorithms.ilql import ILQL
from accord_trainer.algorithms.ppo import PPO
from accord_trainer.algorithms.reward_model import RewardModelTraining
from accord_trainer.algorithms.step_targets import trajectories
from accord_trainer.distributed.process_group import local_device

META = torch.device("meta")
TRANSFERS = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices, but for transfers and single numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_leaves((args, kwargs or {}))
        devices = {one.device.type for one in leaves if isinstance(one, torch.Tensor) and one.ndim}
        if func is torch.ops.aten._local_scalar_dense.default and devices <= {"meta"}:
            return 1  # transformers asks whether a mask is full; there is no content to tell
        assert len(devices) <= 1 or func in TRANSFERS, f"{func} mixes {devices}"
        return func(*args, **(kwargs or {}))


def start(folder: Path, critic: Path | None = None) -> Start:
    return Start(folder, None, critic, True, 0, "float32", device=META)


@pytest.fixture
def back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no content cannot be fetched: zeros of its shape come instead."""
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: torch.zeros(self.shape, dtype=self.dtype))


@pytest.mark.usefixtures("back")
@pytest.mark.parametrize("options", [{}, {"trainable_layers": 1}, {"lora_rank": 2}, {"logits_chunk": 3}])
@pytest.mark.parametrize("share", [True, False])
def test_a_policy_computes_on_its_device(tiny_folder: Path, options: dict[str, object], share: bool) -> None:
    chosen = {**TINY, **options, "share_prefixes": share}
    ppo = PPO(start(tiny_folder), PPO.options_type.model_validate(chosen))
    assert {weight.device for weight in ppo.state().weights.values()} == {META}
    data = trajectories(rollout(tiny_folder))
    rows = ppo._rows(data)
    with OneDevice():
        lower = ppo.policy.lower(rows, 1024, lambda: None)
        out = ppo.policy.outputs(rows, data.temperature_B, data.width, lower, entropy=True)
        _, reference_BR = ppo.policy.reference_logprobs(rows, data.temperature_B, data.width, lower)
    for found in (out.logprobs_BR, out.values_BR, out.entropy_BR, out.final_value_B, reference_BR):
        assert found is not None
        assert found.device.type == "cpu"
    assert all(states.device == META for states in lower.values())


@pytest.mark.usefixtures("back")
def test_a_separate_critic_is_on_the_device_of_the_policy(tiny_folder: Path, tmp_path: Path) -> None:
    from accord_models.loading import new_reward_model
    from accord_models.publishing import save_model
    from accord_models.tokenizer import load_tokenizer

    save_model(new_reward_model(tiny_folder, 0), load_tokenizer(tiny_folder), tmp_path / "critic", "float32")
    ppo = PPO(start(tiny_folder, tmp_path / "critic"), PPO.options_type.model_validate(TINY))
    data = trajectories(rollout(tiny_folder))
    with OneDevice():
        out = ppo.policy.outputs(ppo._rows(data), data.temperature_B, data.width, {})
    assert out.values_BR.device.type == "cpu"


@pytest.mark.usefixtures("back")
def test_heads_of_q_are_on_the_device_of_the_policy(tiny_folder: Path) -> None:
    ilql = ILQL(start(tiny_folder), ILQL.options_type.model_validate(TINY))
    answers = ilql._answers(pairs(2))
    with OneDevice():
        out = ilql.policy.q_outputs(ilql._rows(answers), int(answers.length_B.max()), {})
    assert out.q_HBR.device.type == out.target_q_BR.device.type == "cpu"


@pytest.mark.usefixtures("back")
@pytest.mark.parametrize("share", [True, False])
def test_a_reward_model_scores_on_its_device(tiny_folder: Path, share: bool) -> None:
    chosen = RewardModelTraining.options_type.model_validate({**TINY, "share_prefixes": share})
    training = RewardModelTraining(start(tiny_folder), chosen)
    with OneDevice():
        scores = training.scorer.scores(training._tokenize(pairs(2)))
    assert {score.device.type for score in scores} == {"cpu"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused() -> None:
    with pytest.raises(FailedPrecondition) as none:
        local_device("cuda")
    assert none.value.reason == "NO_GPU"
    assert local_device("auto") == torch.device("cpu")
