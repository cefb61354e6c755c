"""The estimate of a step's memory: close to what passes really keep, and never far above it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support.trainer import TINY, rollout

from accord.errors import ResourceExhausted
from accord_trainer.algorithm import Experience, Start, StepContext
from accord_trainer.algorithms.ppo import PPO, PpoOptions
from accord_trainer.algorithms.step_targets import trajectories
from accord_trainer.model.packing import buckets
from accord_trainer.trainings.memory_budget import cgroup_free, require_room

PROMPTS = tuple((5, 6, 7, i) for i in range(8, 16))


def kept_bytes(ppo: PPO, batch: Experience) -> int:
    """What the graph of the largest pass holds, weights left out."""
    data = trajectories(batch.samples)
    weights = {p.untyped_storage().data_ptr() for p in ppo.policy.model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    group = max(buckets(ppo._rows(data), ppo.options.micro_batch_tokens), key=lambda rows: sum(map(len, rows)))
    lower = ppo.policy.lower(ppo._rows(data), ppo.options.micro_batch_tokens, lambda: None)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = ppo.policy.outputs(group, data.temperature_B, data.width, lower)
    assert out.logprobs_BR.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("options", [{}, {"trainable_layers": 1}, {"micro_batch_tokens": 64}, {"lora_rank": 2}])
def test_the_estimate_of_a_pass_is_near_what_it_keeps(tiny_folder: Path, options: dict[str, object]) -> None:
    start = Start(tiny_folder, None, None, True, 0, "float32")
    ppo = PPO(start, PpoOptions.model_validate({**TINY, **options, "share_prefixes": False}))
    batch = Experience(rollout(tiny_folder, prompts=PROMPTS, samples=2, tokens=12), [])
    needed = ppo.step_bytes(batch)
    # The softmax's gradient comes later: half of the logits' part is held by now.
    expected = needed["activations"] + needed["logits"] // 2
    kept = kept_bytes(ppo, batch)
    assert 0.5 * kept < expected < 1.1 * kept


def test_the_estimate_of_weights_counts_gradients_and_moments_and_the_copy_all_of_them(tiny_folder: Path) -> None:
    start = Start(tiny_folder, None, None, True, 0, "float32")
    ppo = PPO(start, PpoOptions.model_validate(TINY))
    batch = Experience(rollout(tiny_folder), [])
    weights = sum(weight.nbytes for weight in ppo.state().weights.values())
    assert ppo.step_bytes(batch)["weights"] == (1 + 2) * weights
    assert ppo.state().copy_bytes() == weights
    ppo.step(batch, StepContext(0, torch.Generator().manual_seed(0), lambda: None))
    moments = sum(entry.nbytes for entry in ppo.state().optimizer.values())
    assert moments >= 2 * weights
    assert ppo.step_bytes(batch)["weights"] == weights  # the moments are there
    assert ppo.state().copy_bytes() == weights + moments


def test_options_that_save_memory_lower_the_estimate(tiny_folder: Path) -> None:
    batch = Experience(rollout(tiny_folder, prompts=PROMPTS, tokens=12), [])
    start = Start(tiny_folder, None, None, True, 0, "float32")
    plain, recomputed, chunked = (
        PPO(start, PpoOptions.model_validate({**TINY, **options})).step_bytes(batch)
        for options in ({}, {"activation_checkpointing": True}, {"logits_chunk": 4})
    )
    assert recomputed["activations"] < plain["activations"]
    assert chunked["logits"] == 2 * 4 * 4 * 300 < plain["logits"]


def test_a_step_that_does_not_fit_is_refused_with_the_largest_part_first() -> None:
    require_room({"weights": 3, "logits": 7}, 10)
    with pytest.raises(ResourceExhausted, match=r"7.45e-09 GiB for logits of one pass.*2.79e-09 GiB for gradients"):
        require_room({"weights": 3, "logits": 8}, 10)


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    assert cgroup_free(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert cgroup_free(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert cgroup_free(tmp_path) == 1000 - 700 + 150
