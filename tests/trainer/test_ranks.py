"""Several ranks train what one rank trains: losses, metrics, weights, checkpoints. gloo, on the CPU."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.support import rank_scenarios
from tests.support.ranks import run_scenarios

from accord.errors import DataLoss
from accord_trainer.algorithm import AlgorithmState
from accord_trainer.distributed.world import Alone
from accord_trainer.trainings.checkpoints import CheckpointStore

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]  # the first test waits for all scenarios

WAYS = [(2, False), (2, True), (4, False), (4, True)]
STOPPED = [("ppo", 2, False), ("reward_model", 4, True), ("ilql", 4, True)]
# A large epsilon keeps Adam from amplifying rounding to whole steps where a gradient is nearly 0.
OPTIONS: dict[str, dict[str, Any]] = {
    "ppo": {"minibatch_size": 6, "epochs": 1, "adam_epsilon": 1e-3, "micro_batch_tokens": 24},
    "reward_model": {"adam_epsilon": 1e-3, "micro_batch_tokens": 64},
    "ilql": {"adam_epsilon": 1e-3, "micro_batch_tokens": 64, "polyak": 0.5},
    # Groups are normalised over all ranks' samples, and a group is not kept on one rank.
    "grpo": {"minibatch_size": 6, "epochs": 1, "adam_epsilon": 1e-3, "micro_batch_tokens": 24},
    "dapo": {"minibatch_size": 6, "epochs": 1, "adam_epsilon": 1e-3, "micro_batch_tokens": 24},
    "dpo": {"adam_epsilon": 1e-3, "micro_batch_tokens": 64},
    "reward_probe": {"penalty": 1.0, "micro_batch_tokens": 64},
    # The part after the hyphen names a variant: recomputed blocks, logits in chunks.
    "ppo-recomputed": {
        "minibatch_size": 6,
        "epochs": 1,
        "adam_epsilon": 1e-3,
        "micro_batch_tokens": 24,
        "activation_checkpointing": True,
        "logits_chunk": 3,
    },
}
TRAINED = [
    (name, *way) for name in OPTIONS for way in (WAYS if name in ("ppo", "reward_model") else [(2, False), (4, True)])
]
FROZEN = {**OPTIONS["ppo"], "trainable_layers": 1}


def scenario(name: str, ranks: int, sharded: bool, **arguments: Any) -> dict[str, Any]:
    function = f"tests.support.rank_scenarios:{name}"
    return {"function": function, "ranks": ranks, "sharded": sharded, "arguments": arguments}


def trained(
    folder: Path, state: Path, algorithm: str, options: dict[str, Any], first: int, last: int
) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "state": str(state),
        "algorithm": algorithm.partition("-")[0],
        "options": options,
        "first": first,
        "last": last,
    }


class Results:
    """The results of one rank in this process, and of several ranks in separate processes."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.root = root
        self.alone = {
            name: rank_scenarios.train(Alone(), **trained(folder, root / f"{name}-alone", name, options, 0, 3))
            for name, options in OPTIONS.items()
        }
        self.frozen = rank_scenarios.train(Alone(), **trained(folder, root / "frozen", "ppo", FROZEN, 0, 2))
        self.first = rank_scenarios.train(Alone(), **trained(folder, root / "from1", "ppo", OPTIONS["ppo"], 0, 2))
        scenarios: dict[Any, dict[str, Any]] = {}
        for name, ranks, sharded in TRAINED:
            state = root / f"{name}-{ranks}-{sharded}"
            scenarios[name, ranks, sharded] = scenario(
                "train", ranks, sharded, **trained(folder, state, name, OPTIONS[name], 0, 2)
            )
        for name, (ranks, sharded), state in (
            ("2 to 4", (4, True), "ppo-2-True"),
            ("4 to 2 whole", (2, False), "ppo-4-True"),
            ("1 to 4", (4, True), "from1"),
        ):
            scenarios[name] = scenario(
                "train", ranks, sharded, **trained(folder, root / state, "ppo", OPTIONS["ppo"], 2, 3)
            )
        for name, ranks, sharded in STOPPED:
            for way, state, first in (("resumed", f"{name}-{ranks}-{sharded}", 2), ("whole", f"whole-{name}", 0)):
                scenarios[way, name] = scenario(
                    "train", ranks, sharded, **trained(folder, root / state, name, OPTIONS[name], first, 3)
                )
        scenarios["frozen"] = scenario("train", 2, True, **trained(folder, root / "f2", "ppo", FROZEN, 0, 2))
        for rollback in ("memory", "disk"):
            scenarios["failures", rollback] = scenario(
                "failures", 2, True, folder=str(folder), state=str(root / f"failures-{rollback}"), rollback=rollback
            )
        scenarios["driver"] = {**scenario("driver", 2, False), "seconds": 2.0}
        scenarios["helpers"] = scenario("helpers", 4, False)
        found = run_scenarios(list(scenarios.values()), root / "scenarios.json")
        self.several = dict(zip(scenarios, found, strict=True))
        # Last: it continues from the checkpoint of two ranks.
        self.back = rank_scenarios.train(
            Alone(), **trained(folder, root / "reward_model-2-True", "reward_model", OPTIONS["reward_model"], 2, 3)
        )
        self.shards = sorted(path.name for path in (root / "ppo-4-True/trainer/t/checkpoints/00000002").iterdir())


@pytest.fixture(scope="module")
def results(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return Results(tiny_folder, tmp_path_factory.mktemp("ranks"))


def assert_same(found: dict[str, float], expected: dict[str, float]) -> None:
    # Several ranks compute more operations: passes that do not count keep them in lockstep.
    timed = {"tokens_per_second", "learning_seconds", "flops"}
    assert found.keys() == expected.keys()
    assert found["flops"] >= expected["flops"] * (1 - 1e-9)
    for name in expected.keys() - timed:
        assert found[name] == pytest.approx(expected[name], abs=1e-5, rel=1e-5), name


@pytest.mark.parametrize(("algorithm", "ranks", "sharded"), TRAINED)
def test_several_ranks_compute_the_losses_of_one(results: Results, algorithm: str, ranks: int, sharded: bool) -> None:
    several, alone = results.several[algorithm, ranks, sharded], results.alone[algorithm]
    assert several["begun"] == alone["begun"]
    for found, expected in zip(several["metrics"], alone["metrics"][:2], strict=True):
        assert_same(found, expected)
    assert alone["metrics"][0].get("grad_norm", alone["metrics"][0].get("weight_norm")) > 0
    assert len(set(several["digests"])) == 1
    assert len(several["digests"]) == ranks
    assert several["digests"][0] == several["published"] != several["begun"]


def test_what_is_published_from_shards_is_a_model_folder(results: Results) -> None:
    sharded, whole = results.several["ppo", 2, True], results.several["ppo", 2, False]
    assert sharded["files"] == whole["files"]
    assert sharded["config"] == whole["config"] == ["LlamaForCausalLM"]


def test_frozen_blocks_on_several_ranks(results: Results) -> None:
    for found, expected in zip(results.several["frozen"]["metrics"], results.frozen["metrics"], strict=True):
        assert_same(found, expected)


def test_each_rank_writes_its_own_shards_and_nothing_is_pickled(results: Results) -> None:
    ranks = [f"{rank:05d}-of-00004.safetensors" for rank in range(1, 5)]
    expected = [*(f"optimizer-{rank}" for rank in ranks), "rng.safetensors", "state.json"]
    assert results.shards == [*expected, *(f"weights-{rank}" for rank in ranks)]


@pytest.mark.parametrize(
    ("name", "before"),
    [("2 to 4", ("ppo", 2, True)), ("4 to 2 whole", ("ppo", 4, True)), ("1 to 4", None)],
)
def test_another_number_of_ranks_continues_with_the_same_weights(results: Results, name: str, before: Any) -> None:
    left = results.several[before] if before else results.first
    assert results.several[name]["version"] == 2
    # The very bits: rounding differs only from here on.
    assert results.several[name]["begun"] == left["digests"][0]
    assert_same(results.several[name]["metrics"][0], results.alone["ppo"]["metrics"][2])


@pytest.mark.parametrize(("name", "ranks", "sharded"), STOPPED)
def test_the_same_number_of_ranks_continues_with_the_same_bits(
    results: Results, name: str, ranks: int, sharded: bool
) -> None:
    resumed, whole = results.several["resumed", name], results.several["whole", name]
    assert resumed["begun"] == results.several[name, ranks, sharded]["digests"][0]
    assert resumed["digests"] == whole["digests"]
    assert resumed["begun"] not in whole["digests"]


def test_one_rank_continues_from_two(results: Results) -> None:
    assert results.back["begun"] == results.several["reward_model", 2, True]["digests"][0]
    assert_same(results.back["metrics"][0], results.alone["reward_model"]["metrics"][2])


@pytest.mark.parametrize("rollback", ["memory", "disk"])
def test_if_one_rank_cannot_publish_all_ranks_roll_the_step_back(results: Results, rollback: str) -> None:
    found = results.several["failures", rollback]
    assert found["failed"] == [1.0, 1.0]
    assert found["version"] == 1
    assert found["changed"]
    assert found["same"]


def test_adapters_are_not_sharded(results: Results) -> None:
    assert results.several["failures", "memory"]["adapter"] == "training.options.lora_rank"


def test_parts_are_balanced_gradients_are_summed_and_rank_0_broadcasts(results: Results) -> None:
    found = results.several["helpers"]
    assert found["counts"] == [1.0] * 11
    assert max(found["work"]) - min(found["work"]) <= 4
    assert found["largest"] == 3.0
    assert found["broadcast"] == ["from rank 0", ""]
    assert found["gradients"] == [[10.0] * 3, [5.0] * 3, None]


def test_the_driver_distinguishes_a_shared_failure_from_a_lost_rank(results: Results) -> None:
    found = results.several["driver"]
    assert found["result"] == 7
    assert found["alike"] == ["INVALID_ARGUMENT", "INVALID_ARGUMENT", 0]
    assert found["elsewhere"] == ["RESOURCE_EXHAUSTED", "DISK_FULL", 0]
    assert found["unlike"] == ["RANK_LOST", True, 1]
    reason, seconds = found["silent"]
    assert reason == "RANK_LOST"
    assert seconds < 3.5


def test_missing_and_truncated_shards_are_reported(results: Results, tmp_path: Path) -> None:
    checkpoint = results.root / "ppo-4-True/trainer/t/checkpoints/00000002"
    for damage in (lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:-8])):
        copy = Path(shutil.copytree(checkpoint, tmp_path / "checkpoints/00000002", dirs_exist_ok=True))
        damage(copy / "weights-00003-of-00004.safetensors")
        with pytest.raises(DataLoss):
            CheckpointStore(tmp_path / "checkpoints").read(2, AlgorithmState())
