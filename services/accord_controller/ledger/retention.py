"""What is still needed: the complete list that the trainer is told to keep when something is freed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from accord.controller import v1 as controller_v1
from accord.trainer import v1 as trainer_v1
from accord_controller.ledger import keys
from accord_controller.ledger.ledger import Ledger
from accord_controller.store.store import Entry, Store

PAGE = 1000
# Runs in these states may go on: whatever they would need then stays.
MAY_GO_ON = frozenset(
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
    """Digests of weights, ids of trainings, and names of all runs."""

    digests: set[str] = field(default_factory=set)
    training_ids: set[str] = field(default_factory=set)
    run_ids: set[str] = field(default_factory=set)
    # Models and reward models of runs that may go on: the reward service keeps these loaded.
    active_reward_models: set[str] = field(default_factory=set)


async def find_needed(store: Store) -> Needed:
    """Everything that a run, or the registry of models, still refers to."""
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
    """Trainings of a run that it will never need again."""
    done = keys.finished_stages(ledger, iterations)
    over = []
    for iteration in range(1, iterations + 1):
        if controller_v1.STAGE_REWARD_MODEL in done[iteration]:
            over.append(f"{run_id}-{iteration}-reward-model")
        if controller_v1.STAGE_EVALUATE in done[iteration]:
            over.append(f"{run_id}-{iteration}-policy")
    return over


def _add_run(needed: Needed, run: controller_v1.Run, entries: Iterable[Entry]) -> None:
    needed.run_ids.add(run.run_id)
    results = list(run.status.iterations)
    needed.digests |= {result.reward_model.digest for result in results if result.reward_model.digest}
    needed.digests |= {result.policy.digest for result in results if result.promoted}
    if run.status.state not in MAY_GO_ON:
        return
    iterations = run.status.resolved_spec.iterations
    needed.training_ids |= set(training_ids(run.run_id, iterations))
    steps: list[Entry] = []
    ours = {keys.result_key(number, stage) for number in range(iterations + 1) for stage in keys.STAGES}
    for entry in entries:
        if entry.key in ours:
            part = controller_v1.IterationResult.FromString(entry.payload)
            needed.digests |= {ref.digest for ref in (part.policy, part.reward_model) if ref.digest}
            if part.reward_model.digest:
                needed.active_reward_models.add(part.reward_model.digest)
        elif entry.kind == trainer_v1.StepResult.DESCRIPTOR.full_name and "/policy/" in entry.key:
            steps.append(entry)
    for entry in sorted(steps, key=_place)[-KEPT_VERSIONS:]:
        needed.digests.add(trainer_v1.StepResult.FromString(entry.payload).digest)


def _place(entry: Entry) -> tuple[int, str]:
    """Where in the run a step was taken."""
    iteration, rest = entry.key.split("/", 1)
    return int(iteration), rest
