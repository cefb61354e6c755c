"""The scenarios of tests/trainer/test_ranks.py; tests/support/ranks.py runs them in forked ranks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.trainer import pairs, rollout, training

from accord.digest import weights_digest
from accord.errors import Aborted, AccordError, InvalidArgument, ResourceExhausted, Unavailable
from accord.trainer import v1 as trainer_v1
from accord_models.loading import load_causal_lm
from accord_runtime.artifacts.transports.file import local_path
from accord_trainer.algorithm import Experience
from accord_trainer.distributed.driver import DriverExecutor
from accord_trainer.distributed.executor import Command, RankResult
from accord_trainer.distributed.process_group import ProcessGroup
from accord_trainer.distributed.world import World, leads
from accord_trainer.trainings.loading import LoadRequest, TrainingLoader
from accord_trainer.trainings.publisher import Publisher
from accord_trainer.trainings.training import LoadedTraining, RollbackPlace

PROMPTS = ((5, 6, 7), (8, 9), (4,), (10, 11, 12, 13))


def experience(folder: Path, algorithm: str) -> Experience:
    """Lengths are uneven, and the parts cannot be equal on 2 or 4 ranks."""
    if algorithm in ("reward_model", "reward_probe", "ilql", "dpo"):
        return Experience([], pairs(7))
    samples = rollout(folder, prompts=PROMPTS[:3], samples=3) + rollout(
        folder, prompts=PROMPTS[3:], samples=2, tokens=9
    )
    return Experience(samples, [])


def load(
    world: World, folder: Path, state: Path, algorithm: str, options: dict[str, Any], rollback: RollbackPlace = "memory"
) -> LoadedTraining:
    """The training of the last checkpoint below `state`, or a new one."""
    publisher = Publisher(state / "artifacts", "file", lambda: "", world)
    loader = TrainingLoader(state / "trainer", publisher, world, torch.device("cpu"), rollback=rollback)
    versions = loader.checkpoints("t").versions()
    world.max(0.0)  # all have looked before one of them writes
    definition = training(folder, algorithm=algorithm, options=options, checkpoint_every=1000)
    request = LoadRequest(definition, None, "float32", 1, versions[-1] if versions else 0)
    return loader.load(request, {"init": folder}, lambda: None)


def train(
    world: World, folder: str, state: str, algorithm: str, options: dict[str, Any], first: int, last: int
) -> dict[str, Any]:
    """Steps `first` + 1 to `last`, the last of them published and checkpointed. The batch is the same each time."""
    loaded = load(world, Path(folder), Path(state), algorithm, options)
    batch = experience(Path(folder), algorithm)
    found: dict[str, Any] = {"metrics": [], "begun": loaded.history.digest, "version": loaded.history.version}
    for version in range(first, last):
        for scored in batch.samples:
            scored.sample.segments[0].version = version
            scored.sample.segments[0].digest = loaded.history.digest
        request = trainer_v1.StepRequest(training_id="t", parent_version=version, publish=version + 1 == last)
        result = loaded.step(request, batch)
        found["metrics"].append(dict(result.metrics))
    loaded.checkpoint()
    digests = torch.zeros(world.size, 64)
    digests[world.rank] = torch.tensor([float(ord(letter)) for letter in loaded.history.digest])
    found["digests"] = ["".join(map(chr, map(int, row))) for row in world.sum(digests).tolist()]
    if leads(world):
        published = local_path(result.weights.uri)
        found["published"] = weights_digest(published)
        found["config"] = load_causal_lm(published).config.architectures if algorithm != "reward_model" else None
        found["files"] = sorted(path.name for path in published.iterdir())
    return found


def failures(world: World, folder: str, state: str, rollback: RollbackPlace) -> dict[str, Any]:
    """The state after a step that fails half-way, on one rank only."""
    loaded = load(world, Path(folder), Path(state), "reward_model", {}, rollback)
    batch = experience(Path(folder), "reward_model")
    before = loaded.history.digest
    request = trainer_v1.StepRequest(training_id="t", parent_version=0, publish=True)
    blocked = Path(state) / "artifacts"
    if leads(world):
        blocked.write_text("a file where the folder should be: rank 0 cannot publish")
    reasons = [0.0, 0.0]
    try:
        loaded.step(request, batch)
    except (AccordError, OSError) as error:
        reasons[0 if leads(world) else 1] = 1.0 if leads(world) else float(getattr(error, "reason", "") == "OTHER_RANK")
    failed = world.sum(torch.tensor(reasons)).tolist()
    if leads(world):
        blocked.unlink()
    world.max(0.0)
    after = loaded.step(request, batch).digest
    other = load(world, Path(folder), Path(state) / "calm", "reward_model", {}).step(request, batch).digest
    with pytest.raises(InvalidArgument) as adapter:
        load(world, Path(folder), Path(state) / "adapter", "reward_model", {"lora_rank": 2})
    return {
        "failed": failed,
        "version": loaded.history.version,
        "changed": after != before,
        "same": after == other,
        "adapter": adapter.value.violations[0].field,
    }


def helpers(world: World) -> dict[str, Any]:
    """The parts of `mine`, gradients that some ranks do not have, and a broadcast."""
    items = list(range(11))
    counts = torch.zeros(11)
    counts[world.mine(items)] += 1.0
    mine = torch.zeros(world.size)
    mine[world.rank] = float(sum(items[-1] - item for item in world.mine(items)))
    plain, scarce, none = (torch.nn.Parameter(torch.zeros(3)) for _ in range(3))
    plain.grad = torch.full((3,), float(world.rank + 1))
    if world.rank == 1:
        scarce.grad = torch.full((3,), 5.0)
    world.add_gradients([plain, scarce, none])
    assert plain.grad is not None
    assert scarce.grad is not None
    broadcast = [world.broadcast(data if leads(world) else b"").decode() for data in (b"from rank 0", b"")]
    received = torch.tensor([float(broadcast == ["from rank 0", ""])])
    assert float(world.sum(received)) == world.size
    return {
        "counts": world.sum(counts).tolist(),
        "work": world.sum(mine).tolist(),
        "largest": world.max(float(world.rank)),
        "broadcast": broadcast,
        "gradients": [plain.grad.tolist(), scarce.grad.tolist(), none.grad],
    }


def driver(world: ProcessGroup) -> dict[str, Any]:
    """How the driver treats ranks that ended differently, failed together, and at last do not answer."""
    results: list[RankResult] = [
        RankResult(check="x"),
        RankResult.of(InvalidArgument.at("batch", "is bad")),
        RankResult.of(ResourceExhausted("full", reason="DISK_FULL")),
        RankResult(check="other"),
    ]
    if not leads(world):
        for result in results:
            assert Command.from_bytes(world.broadcast_command()) == Command(
                "step", "t", {"a": [1]}, (b"\0\1", b"", b"2")
            )
            world.all_gather(result.to_bytes())
        time.sleep(4)
        return {}
    command = Command("step", "t", {"a": [1]}, (b"\0\1", b"", b"2"))
    ended: list[bool] = []
    executor = DriverExecutor(world, exit_process=lambda: ended.append(True))
    found: dict[str, Any] = {"result": executor.run(command, lambda: 7, lambda _: "x")}

    def fails(error: AccordError) -> Any:
        def work() -> None:
            raise error

        with pytest.raises(AccordError) as seen:
            executor.run(command, work)
        return [seen.value.code.name, seen.value.reason, len(ended)]

    found["alike"] = fails(InvalidArgument.at("batch", "is bad"))
    found["elsewhere"] = fails(Aborted("another rank failed", reason="OTHER_RANK"))
    with pytest.raises(Unavailable) as unlike:
        executor.run(command, lambda: 7, lambda _: "x")
    found["unlike"] = [unlike.value.reason, "rank 1: done other" in unlike.value.message, len(ended)]
    began = time.monotonic()
    with pytest.raises(Unavailable) as silent:
        world.sum(torch.ones(1))
    found["silent"] = [silent.value.reason, time.monotonic() - began]
    return found
