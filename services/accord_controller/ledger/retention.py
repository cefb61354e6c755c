"""Determines what must be kept: everything that a run or the model registry still refers to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from accord.controller import v1 as controller_v1
from accord.trainer import v1 as trainer_v1
from accord_controller.ledger import keys
from accord_controller.ledger.ledger import Ledger
from accord_controller.store.store import Entry, Store

PAGE = 1000
# Runs in these states may continue, so everything that they might need is kept.
MAY_CONTINUE = frozenset(
    {
        controller_v1.RUN_STATE_PENDING,
        controller_v1.RUN_STATE_RUNNING,
        controller_v1.RUN_STATE_PAUSED,
        controller_v1.RUN_STATE_FAILED,
    }
)
KEPT_VERSIONS = 2


@dataclass
class Needed:
    """The data to keep, and the names of all runs."""

    digests: set[str] = field(default_factory=set)
    training_ids: set[str] = field(default_factory=set)
    run_ids: set[str] = field(default_factory=set)
    # The reward models of runs that may continue; the reward service keeps them loaded.
    active_reward_models: set[str] = field(default_factory=set)


async def find_needed(store: Store) -> Needed:
    """Everything that a run or the model registry still refers to."""
    needed = Needed()
    before: int | None = None
    while True:
        models, before = await store.list_models(PAGE, before)
        needed.digests |= {model.weights.digest for model in models}
        if before is None:
            break
    while True:
        runs, before = await store.list_runs(PAGE, before)
        for run in runs:
            _add_run(needed, run, await store.entries(run.run_id))
        if before is None:
            return needed


def training_ids(run_id: str, iterations: int) -> list[str]:
    """Every training that a run may have open."""
    kinds = ("policy", "reward-model")
    names = ["trial", *(str(iteration) for iteration in range(1, iterations + 1))]
    return [f"{run_id}-{name}-{kind}" for name in names for kind in kinds]


def finished_training_ids(run_id: str, iterations: int, ledger: Ledger) -> list[str]:
    """The trainings that a run will not need again."""
    done = keys.finished_stages(ledger, iterations)
    finished = []
    for iteration in range(1, iterations + 1):
        if controller_v1.STAGE_REWARD_MODEL in done[iteration]:
            finished.append(f"{run_id}-{iteration}-reward-model")
        if controller_v1.STAGE_EVALUATE in done[iteration]:
            finished.append(f"{run_id}-{iteration}-policy")
    return finished


def published_by(artifact: str, run_ids: set[str]) -> bool:
    """Whether one of these runs published an artifact (a path or an id that begins with the training's id)."""
    # A folder that is being written begins with a dot.
    name = artifact.rstrip("/").rsplit("/", 1)[-1].lstrip(".")
    return any(name.startswith(f"{run_id}-") for run_id in run_ids)


def _add_run(needed: Needed, run: controller_v1.Run, entries: Iterable[Entry]) -> None:
    needed.run_ids.add(run.run_id)
    results = list(run.status.iterations)
    needed.digests |= {result.reward_model.digest for result in results if result.reward_model.digest}
    needed.digests |= {result.policy.digest for result in results if result.promoted}
    if run.status.state not in MAY_CONTINUE:
        return
    iterations = run.status.resolved_spec.iterations
    needed.training_ids |= set(training_ids(run.run_id, iterations))
    steps: list[Entry] = []
    results_of_stages = {keys.result_key(number, stage) for number in range(iterations + 1) for stage in keys.STAGES}
    for entry in entries:
        if entry.key in results_of_stages:
            part = controller_v1.IterationResult.FromString(entry.payload)
            needed.digests |= {ref.digest for ref in (part.policy, part.reward_model) if ref.digest}
            if part.reward_model.digest:
                needed.active_reward_models.add(part.reward_model.digest)
        elif entry.kind == trainer_v1.StepResult.DESCRIPTOR.full_name and "/policy/" in entry.key:
            steps.append(entry)
    for entry in sorted(steps, key=_place)[-KEPT_VERSIONS:]:
        needed.digests.add(trainer_v1.StepResult.FromString(entry.payload).digest)


def _place(entry: Entry) -> tuple[int, str]:
    """The position of a step in the run."""
    iteration, rest = entry.key.split("/", 1)
    return int(iteration), rest
