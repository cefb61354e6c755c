"""Options that trade memory for time change what is held, and nothing that is learned."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.trainer import TINY, pairs, rollout
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from accord_models.loading import load_causal_lm
from accord_trainer.algorithm import Experience, Start, StepContext
from accord_trainer.algorithms.ppo import PPO, PpoOptions
from accord_trainer.algorithms.reward_model import RewardModelOptions, RewardModelTraining
from accord_trainer.algorithms.step_targets import trajectories
from accord_trainer.model.policy import token_logprobs
from accord_trainer.model.trunk import Trunk
from accord_trainer.trainings.weights_digest import published_digest

pytestmark = pytest.mark.process

TOKENS, WIDTH, VOCABULARY = 23, 8, 50


@pytest.fixture(scope="module")
def compiler_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What was compiled once serves the other tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


def make(folder: Path, **options: object) -> PPO:
    chosen = {**TINY, "epochs": 2, "minibatch_size": 4, "adam_epsilon": 1e-3, **options}
    return PPO(Start(folder, None, None, True, 0, "float32"), PpoOptions.model_validate(chosen))


def context() -> StepContext:
    return StepContext(0, torch.Generator().manual_seed(0), lambda: None)


def batch(folder: Path) -> Experience:
    return Experience(rollout(folder, samples=4), [])


def digest(algorithm: Any) -> str:
    return published_digest(algorithm.merged(), "float32")


class Shapes(TorchDispatchMode):
    """The shapes of all tensors that are made."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else (found,):
            if isinstance(one, torch.Tensor):
                self.seen.add(tuple(one.shape))
        return found


def run_logprobs(bias: bool, chunk: int) -> tuple[list[torch.Tensor], int]:
    """Values and gradients, and the most rows of logits that existed at once."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(TOKENS, WIDTH, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
    temperature = torch.rand(TOKENS, generator=generator, dtype=torch.float64) + 0.5
    head = torch.nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    with Shapes() as shapes:
        logprobs, entropy = token_logprobs(states, targets, temperature, head, entropy=True, chunk=chunk)
        assert entropy is not None
        (logprobs * torch.arange(TOKENS) + 0.3 * entropy).sum().backward()  # type: ignore[no-untyped-call]
    rows = max(shape[0] for shape in shapes.seen if len(shape) == 2 and shape[1] == VOCABULARY and shape[0] != WIDTH)
    found = [logprobs.detach(), entropy.detach(), states.grad, *(p.grad for p in head.parameters())]
    return [tensor for tensor in found if tensor is not None], rows


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [1, 5, TOKENS])
def test_logits_in_chunks_give_the_values_and_gradients_of_all_at_once(bias: bool, chunk: int) -> None:
    whole, all_rows = run_logprobs(bias, 0)
    pieces, rows = run_logprobs(bias, chunk)
    assert (all_rows, rows) == (TOKENS, chunk)  # never more of them at once, not for the gradient either
    for expected, found in zip(whole, pieces, strict=True):
        assert torch.allclose(expected, found, atol=1e-12)


def test_logits_in_chunks_are_not_kept_for_the_gradient() -> None:
    head = torch.nn.Linear(WIDTH, VOCABULARY)
    states, targets = torch.randn(TOKENS, WIDTH).requires_grad_(), torch.zeros(TOKENS, dtype=torch.long)
    kept: dict[int, int] = {}
    for chunk in (0, 5):

        def pack(tensor: torch.Tensor, chunk: int = chunk) -> torch.Tensor:
            kept[chunk] = kept.get(chunk, 0) + int(tensor.ndim == 2 and tensor.shape[1] == VOCABULARY)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            token_logprobs(states, targets, torch.ones(TOKENS), head, entropy=False, chunk=chunk)
    assert kept.get(0, 0) > 0
    assert kept.get(5, 0) == 0


@pytest.mark.parametrize("options", [{}, {"trainable_layers": 1}, {"lora_rank": 2}, {"entropy_coefficient": 0.1}])
def test_logits_in_chunks_train_the_same_policy(tiny_folder: Path, options: dict[str, object]) -> None:
    found = []
    for chunk in (0, 3):
        ppo = make(tiny_folder, logits_chunk=chunk, **options)
        metrics = ppo.step(batch(tiny_folder), context())
        found.append((torch.cat([w.flatten() for w in ppo.state().weights.values()]), metrics))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"trainable_layers": 1}, {"lora_rank": 2}])
def test_recomputed_blocks_train_the_same_bits(tiny_folder: Path, options: dict[str, object]) -> None:
    digests = []
    for recompute in (False, True):
        ppo = make(tiny_folder, activation_checkpointing=recompute, **options)
        ppo.step(batch(tiny_folder), context())
        digests.append(digest(ppo))
    assert digests[0] == digests[1]
    rewards = []
    for recompute in (False, True):
        start = Start(tiny_folder, None, None, True, 0, "float32")
        chosen = RewardModelOptions.model_validate({**TINY, "activation_checkpointing": recompute, **options})
        model = RewardModelTraining(start, chosen)
        model.step(Experience([], pairs(4)), context())
        rewards.append(digest(model))
    assert rewards[0] == rewards[1]


def test_recomputed_blocks_keep_less(tiny_folder: Path) -> None:
    """Bytes that the graph holds after a forward pass, weights left out."""
    held = []
    for recompute in (False, True):
        ppo = make(tiny_folder, activation_checkpointing=recompute, logits_chunk=1)
        weights = {p.untyped_storage().data_ptr() for p in ppo.policy.model.parameters()}
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor, kept: dict[int, int] = kept, weights: set[int] = weights) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        data = trajectories(rollout(tiny_folder, samples=4))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = ppo.policy.outputs(ppo._rows(data), data.temperature_B, data.width, {})
        assert out.logprobs_BR.requires_grad
        held.append(sum(kept.values()))
    assert held[1] < held[0] / 3


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.timeout(900)  # a C++ compiler runs, perhaps on busy cores
@pytest.mark.usefixtures("compiler_cache")
def test_compiled_blocks_give_the_losses_of_plain_ones(tiny_folder: Path) -> None:
    """With recomputation, which goes through the compiled blocks once more."""
    found = []
    graphs = counters["stats"]["unique_graphs"]
    for compiled in (False, True):
        ppo = make(tiny_folder, compile=compiled, activation_checkpointing=True, epochs=1, minibatch_size=64)
        metrics = ppo.step(batch(tiny_folder), context())
        found.append((metrics, torch.cat([w.flatten() for w in ppo.state().weights.values()])))
    assert counters["stats"]["unique_graphs"] > graphs
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-4, rel=1e-4)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.timeout(900)  # a C++ compiler runs, perhaps on busy cores
@pytest.mark.usefixtures("compiler_cache")
def test_compiled_blocks_give_the_same_bits_whatever_lengths_came_first(tiny_folder: Path) -> None:
    """A trainer that starts again meets another batch first than the one that was killed."""
    found = []
    for others in ([], [3, 9]):
        torch._dynamo.reset()
        ppo = make(tiny_folder, compile=True, epochs=1, minibatch_size=64)
        for tokens in others:
            ppo.evaluate(Experience(rollout(tiny_folder, samples=1, tokens=tokens), []), context())
        ppo.step(batch(tiny_folder), context())
        found.append(digest(ppo))
    assert found[0] == found[1]


def test_a_reference_in_the_compute_type_gives_the_same_bits_from_less_memory(tiny_folder: Path) -> None:
    start = Start(tiny_folder, None, None, True, 0, "bfloat16")
    ppo = PPO(start, PpoOptions.model_validate(TINY))
    data = trajectories(batch(tiny_folder).samples)
    assert ppo.policy._reference is not None
    blocks = ppo.policy._reference[0].blocks
    linear = [layer for layer in blocks.modules() if isinstance(layer, torch.nn.Linear)]
    assert {layer.weight.dtype for layer in linear} == {torch.bfloat16}
    rounded = ppo.policy.reference_logprobs(ppo._rows(data), data.temperature_B, data.width, {})[1]
    for layer, plain in zip(linear, plain_linear(tiny_folder), strict=True):
        layer.weight = plain.weight
    exact = ppo.policy.reference_logprobs(ppo._rows(data), data.temperature_B, data.width, {})[1]
    assert linear[0].weight.dtype == torch.float32
    assert torch.equal(rounded, exact)


def plain_linear(folder: Path) -> list[torch.nn.Linear]:
    blocks = Trunk(load_causal_lm(folder).base_model).blocks
    return [layer for layer in blocks.modules() if isinstance(layer, torch.nn.Linear)]


def test_without_a_compiler_the_option_is_refused(tmp_path: Path) -> None:
    code = (
        "from accord.errors import FailedPrecondition\n"
        "from accord_trainer.model.trunk import require_compiler\n"
        "try:\n    require_compiler('cpu')\n"
        "except FailedPrecondition as error:\n    print(error.reason, error.message)\n"
    )
    environment = {**os.environ, "CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert done.stdout.startswith("COMPILE_UNAVAILABLE"), done.stderr[-2000:]
    assert "Install a C++ compiler" in done.stdout
