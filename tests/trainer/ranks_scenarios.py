"""What ranks are made to do in test_ranks.py; run in forked processes by tests/support/ranks.py."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.trainer.trainer_bench import pairs, rollout, training

from accord.digest import weights_digest
from accord.errors import Aborted, AccordError, InvalidArgument, ResourceExhausted, Unavailable
from accord.trainer import v1 as trainer_v1
from accord_models.loading import load_causal_lm
from accord_runtime.artifacts.transports.file import local_path
from accord_trainer.algorithm import Experience
from accord_trainer.distributed.driver import DriverExecutor
from accord_trainer.distributed.executor import Command
from accord_trainer.distributed.process_group import ProcessGroup
from accord_trainer.distributed.rank_result import Outcome
from accord_trainer.distributed.world import World, leads
from accord_trainer.trainings.loading import LoadRequest, TrainingLoader
from accord_trainer.trainings.publisher import Publisher
from accord_trainer.trainings.rollback import Place
from accord_trainer.trainings.training import LoadedTraining

PROMPTS = ((5, 6, 7), (8, 9), (4,), (10, 11, 12, 13))


def experience(folder: Path, algorithm: str) -> Experience:
    """Lengths are uneven, and the parts cannot be equal on 2 or 4 ranks."""
    if algorithm in ("reward_model", "reward_probe", "ilql", "dpo"):
        return Experience([], pairs(7))
    samples = rollout(folder, prompts=PROMPTS[:3], samples=3) + rollout(
        folder, prompts=PROMPTS[3:], samples=2, tokens=9
    )
    return Experience(samples, [])


def opened(
    world: World, folder: Path, state: Path, algorithm: str, options: dict[str, Any], undo: Place = "memory"
) -> LoadedTraining:
    """The training of the last checkpoint below `state`, or a new one."""
    publisher = Publisher(state / "artifacts", "file", lambda: "", world)
    bench = TrainingLoader(state / "trainer", publisher, world, torch.device("cpu"), undo=undo)
    versions = bench.checkpoints("t").versions()
    world.max(0.0)  # all have looked before one of them writes
    wanted = training(folder, algorithm=algorithm, options=options, checkpoint_every=1000)
    opening = LoadRequest(wanted, None, "float32", 1, versions[-1] if versions else 0)
    return bench.open(opening, {"init": folder}, lambda: None)


def train(
    world: World, folder: str, state: str, algorithm: str, options: dict[str, Any], first: int, last: int
) -> dict[str, Any]:
    """Steps `first` + 1 to `last`, the last of them published and checkpointed. The batch is the same each time."""
    live = opened(world, Path(folder), Path(state), algorithm, options)
    batch = experience(Path(folder), algorithm)
    found: dict[str, Any] = {"metrics": [], "begun": live.record.digest, "record": live.record.version}
    for version in range(first, last):
        for scored in batch.samples:
            scored.sample.segments[0].version = version
            scored.sample.segments[0].digest = live.record.digest
        request = trainer_v1.StepRequest(training_id="t", parent_version=version, publish=version + 1 == last)
        result = live.step(request, batch)
        found["metrics"].append(dict(result.metrics))
    live.checkpoint()
    digests = torch.zeros(world.size, 64)
    digests[world.rank] = torch.tensor([float(ord(letter)) for letter in live.record.digest])
    found["digests"] = ["".join(map(chr, map(int, row))) for row in world.sum(digests).tolist()]
    if leads(world):
        published = local_path(result.weights.uri)
        found["published"] = weights_digest(published)
        found["config"] = load_causal_lm(published).config.architectures if algorithm != "reward_model" else None
        found["files"] = sorted(path.name for path in published.iterdir())
    return found


def failures(world: World, folder: str, state: str, undo: Place) -> dict[str, Any]:
    """What a step that breaks on one rank alone, half way, leaves behind."""
    live = opened(world, Path(folder), Path(state), "reward_model", {}, undo)
    batch = experience(Path(folder), "reward_model")
    before = live.record.digest
    request = trainer_v1.StepRequest(training_id="t", parent_version=0, publish=True)
    blocked = Path(state) / "artifacts"
    if leads(world):
        blocked.write_text("a file where the folder should be: rank 0 cannot publish")
    reasons = [0.0, 0.0]
    try:
        live.step(request, batch)
    except (AccordError, OSError) as error:
        reasons[0 if leads(world) else 1] = 1.0 if leads(world) else float(getattr(error, "reason", "") == "OTHER_RANK")
    failed = world.sum(torch.tensor(reasons)).tolist()
    if leads(world):
        blocked.unlink()
    world.max(0.0)
    after = live.step(request, batch).digest
    other = opened(world, Path(folder), Path(state) / "calm", "reward_model", {}).step(request, batch).digest
    with pytest.raises(InvalidArgument) as adapter:
        opened(world, Path(folder), Path(state) / "adapter", "reward_model", {"lora_rank": 2})
    return {
        "failed": failed,
        "version": live.record.version,
        "changed": after != before,
        "same": after == other,
        "adapter": adapter.value.violations[0].field,
    }


def helpers(world: World) -> dict[str, Any]:
    """The parts of `mine`, and gradients of which some ranks have none."""
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
    return {
        "counts": world.sum(counts).tolist(),
        "work": world.sum(mine).tolist(),
        "largest": world.max(float(world.rank)),
        "gradients": [plain.grad.tolist(), scarce.grad.tolist(), none.grad],
    }


def troubles(world: ProcessGroup) -> dict[str, Any]:
    """What the leader says of ranks that came to another end, failed together, and at last do not answer."""
    told: list[Outcome] = [
        Outcome(check="x"),
        Outcome.of(InvalidArgument.at("batch", "is bad")),
        Outcome.of(ResourceExhausted("full", reason="DISK_FULL")),
        Outcome(check="other"),
    ]
    if not leads(world):
        for outcome in told:
            assert Command.from_bytes(world.order()) == Command("step", "t", {"a": [1]}, (b"\0\1", b"", b"2"))
            world.exchange(outcome.to_bytes())
        time.sleep(4)
        return {}
    order = Command("step", "t", {"a": [1]}, (b"\0\1", b"", b"2"))
    ended: list[bool] = []
    leader = DriverExecutor(world, end=lambda: ended.append(True))
    found: dict[str, Any] = {"result": leader.together(order, lambda: 7, lambda _: "x")}

    def fails(error: AccordError) -> Any:
        def work() -> None:
            raise error

        with pytest.raises(AccordError) as seen:
            leader.together(order, work)
        return [seen.value.code.name, seen.value.reason, len(ended)]

    found["alike"] = fails(InvalidArgument.at("batch", "is bad"))
    found["elsewhere"] = fails(Aborted("another rank failed", reason="OTHER_RANK"))
    with pytest.raises(Unavailable) as unlike:
        leader.together(order, lambda: 7, lambda _: "x")
    found["unlike"] = [unlike.value.reason, "rank 1: done other" in unlike.value.message, len(ended)]
    began = time.monotonic()
    with pytest.raises(Unavailable) as silent:
        world.sum(torch.ones(1))
    found["silent"] = [silent.value.reason, time.monotonic() - began]
    return found
