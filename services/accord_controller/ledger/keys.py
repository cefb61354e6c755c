"""The keys of a run's ledger: the name of each recorded fact, and the progress that the keys show."""

from __future__ import annotations

from collections.abc import Mapping

from accord.controller import v1 as controller_v1
from accord.names import stage_name
from accord_controller.ledger.ledger import Ledger

# The stages of an iteration, in order. Preparation comes before them, as iteration 0.
STAGES = (
    controller_v1.STAGE_COLLECT,
    controller_v1.STAGE_REWARD_MODEL,
    controller_v1.STAGE_POLICY,
    controller_v1.STAGE_EVALUATE,
)
ENDED = frozenset(
    {controller_v1.RUN_STATE_SUCCEEDED, controller_v1.RUN_STATE_FAILED, controller_v1.RUN_STATE_CANCELLED}
)


def key(iteration: int, *parts: object) -> str:
    """`2/policy/00007/step`. Numbers are padded so that keys sort chronologically."""
    return "/".join([str(iteration), *(f"{part:05d}" if isinstance(part, int) else str(part) for part in parts)])


BASE = key(0, "prepare", "base")
REWARD_BASE = key(0, "prepare", "reward_model_base")
PROMPTS = key(0, "prepare", "prompts")
PROMPT_SNAPSHOT = key(0, "prepare", "prompt_snapshot")
FEEDBACK = key(0, "prepare", "imported_feedback")
ENGINE = key(0, "prepare", "engine")
TRAINER = key(0, "prepare", "trainer")


def result_key(iteration: int, stage: controller_v1.Stage.ValueType) -> str:
    """The key of a finished stage's part of the iteration's result."""
    return key(iteration, stage_name(stage), "result")


def scorer_key(iteration: int) -> str:
    """The key of the iteration's reward model as a normalised scorer."""
    return key(iteration, "reward_model", "scorer")


def step_key(iteration: int, name: str, step: int) -> str:
    """The key of a step's result."""
    return key(iteration, name, step, "step")


def experience_key(iteration: int, name: str, step: int) -> str:
    """The key of a step's experience."""
    return key(iteration, name, step, "experience")


def finished_stages(ledger: Ledger, iterations: int) -> Mapping[int, frozenset[controller_v1.Stage.ValueType]]:
    """The stages with a recorded result, by iteration."""
    found = {
        iteration: frozenset(stage for stage in STAGES if result_key(iteration, stage) in ledger)
        for iteration in range(1, iterations + 1)
    }
    prepared = result_key(0, controller_v1.STAGE_PREPARE) in ledger
    found[0] = frozenset({controller_v1.STAGE_PREPARE} if prepared else ())
    return found


def iteration_so_far(ledger: Ledger, iteration: int) -> controller_v1.IterationResult:
    """The parts that the finished stages of an iteration recorded, merged."""
    whole = controller_v1.IterationResult(iteration=iteration)
    for stage in (controller_v1.STAGE_PREPARE, *STAGES):
        part = ledger.get(result_key(iteration, stage), controller_v1.IterationResult)
        if part is not None:
            whole.MergeFrom(part)
    return whole
