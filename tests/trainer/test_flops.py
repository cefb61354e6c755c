"""The operations that a step is said to take are those that torch counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support.trainer import TINY, pairs, rollout, trainer, training
from torch.utils.flop_counter import FlopCounterMode

from accord_trainer.algorithm import Experience, Start, StepContext
from accord_trainer.algorithms.ppo import PPO, PpoOptions
from accord_trainer.algorithms.step_targets import trajectories
from accord_trainer.model.packing import Row
from accord_trainer.model.trunk import seen_tokens
from accord_trainer.trainings.device_speed import peak_by_name, peak_flops

MATRICES = {torch.ops.aten.mm, torch.ops.aten.addmm}


@pytest.mark.parametrize("options", [{}, {"trainable_layers": 1}, {"lora_rank": 4}])
@pytest.mark.parametrize("learn", [False, True])
def test_passes_cost_what_torch_counts(tiny_folder: Path, options: dict[str, object], learn: bool) -> None:
    """Matrix products exactly, but for adapters and the value head; one response to each prompt, so no pads."""
    start = Start(tiny_folder, None, None, True, 0, "float32")
    ppo = PPO(start, PpoOptions.model_validate({**TINY, **options, "share_prefixes": False}))
    data = trajectories(rollout(tiny_folder, prompts=((5, 6, 7), (8, 9, 10)), samples=1))
    rows = ppo._rows(data)
    assert len({len(row) for row in rows}) == 1
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(learn):
        out = ppo.policy.outputs(rows, data.temperature_B, data.width, {})
        if learn:
            out.logprobs_BR.sum().backward()  # type: ignore[no-untyped-call]
    counted = sum(n for op, n in counter.get_flop_counts()["Global"].items() if op in MATRICES)
    config = ppo.policy.model.config
    layers = config.num_hidden_layers
    seen = sum(map(seen_tokens, rows))
    trained = layers if not options.get("trainable_layers") else 1
    attention = 4.0 * config.hidden_size * seen * (layers + (2 * trained if learn else 0))
    found = ppo.policy.flops() - attention
    values = 2 * config.hidden_size * (sum(map(len, data.responses)) + len(rows))
    assert found == pytest.approx(counted - values, rel=0.15 if "lora_rank" in options else 1e-9)


def test_tokens_see_their_prompt_and_their_own_response() -> None:
    assert seen_tokens(Row((1, 2, 3), ((4, 5), (6,)), (0, 1))) == (1 + 2 + 3) + (4 + 5) + 4
    assert seen_tokens(Row((), ((1, 2, 3),), (0,))) == 1 + 2 + 3


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_peaks_by_the_names_that_torch_gives(name: str, peak: float | None) -> None:
    assert peak_by_name(name) == peak
    assert peak_flops(torch.device("cpu")) is None


@pytest.mark.parametrize("algorithm", ["ppo", "reward_model", "sft", "ilql"])
async def test_a_step_reports_its_operations_and_the_share_of_the_peak(
    algorithm: str, tiny_folder: Path, tmp_path: Path
) -> None:
    async with trainer(tmp_path, peak_tflops=0.5) as client:
        await client.trainer.create_training(training(tiny_folder, algorithm=algorithm))
        batch = {"samples": rollout(tiny_folder)} if algorithm == "ppo" else {"preferences": pairs(2)}
        put = await client.trainer.put_experience("t", **batch)  # type: ignore[arg-type]
        await client.trainer.evaluate("t", put.batch_id)  # does not count
        found = (await client.trainer.step("t", put.batch_id, parent_version=0)).metrics
        assert found["flops"] > 1e6
        assert found["mfu"] == pytest.approx(found["flops"] / (0.5e12 * found["learning_seconds"]))
    other = tmp_path / "other"
    async with trainer(other) as client:
        await client.trainer.create_training(training(tiny_folder, algorithm=algorithm))
        put = await client.trainer.put_experience("t", **batch)  # type: ignore[arg-type]
        again = (await client.trainer.step("t", put.batch_id, parent_version=0)).metrics
        assert again["flops"] == found["flops"]
        assert "mfu" not in again  # the peak of this processor is unknown


def test_flops_of_a_whole_step_by_hand(tiny_folder: Path) -> None:
    """Old policy, reference, and `epochs` passes forth and back: 2 + 2 + 6 epochs times the entries of the matrices."""
    start = Start(tiny_folder, None, None, True, 0, "float32")
    ppo = PPO(start, PpoOptions.model_validate({**TINY, "epochs": 3}))
    batch = Experience(rollout(tiny_folder), [])
    data = trajectories(batch.samples)
    rows = ppo._rows(data)
    blocks = 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64)
    tokens, answered = sum(map(len, rows)), sum(map(len, data.responses))
    once = 2.0 * (blocks * tokens + 32 * 300 * answered) + 2 * 4.0 * 32 * sum(map(seen_tokens, rows))
    ppo.step(batch, StepContext(0, torch.Generator().manual_seed(0), lambda: None))
    assert ppo.flops() == pytest.approx(once * (2 + 3 * 3))
