"""Short names for people and programs where the contract has enums."""

from __future__ import annotations

from accord.controller import v1 as controller_v1


def state_name(state: controller_v1.RunState.ValueType) -> str:
    """`running` for RUN_STATE_RUNNING; `unspecified` for 0, the number itself for states newer than this client."""
    if state not in controller_v1.RunState.values():
        return str(int(state))
    return controller_v1.RunState.Name(state).removeprefix("RUN_STATE_").lower()


def stage_name(stage: controller_v1.Stage.ValueType) -> str:
    """`reward_model` for STAGE_REWARD_MODEL; empty where no stage applies."""
    if stage == controller_v1.STAGE_UNSPECIFIED:
        return ""
    if stage not in controller_v1.Stage.values():
        return str(int(stage))
    return controller_v1.Stage.Name(stage).removeprefix("STAGE_").lower()


def stage_title(stage: str) -> str:
    """`reward model` for `reward_model`: as people read it."""
    return stage.replace("_", " ")
