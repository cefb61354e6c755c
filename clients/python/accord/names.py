"""The contracts' enum values as short names, for people, JSON and logs: `reward_model` for STAGE_REWARD_MODEL."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from accord.controller import v1 as controller_v1

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper


def enum_name(enum: _EnumTypeWrapper[Any], value: int) -> str:
    """A value without its enum's prefix, lower case: `human` for ANNOTATOR_KIND_HUMAN of AnnotatorKind.

    `unspecified` for 0; the number itself for a value that is newer than this client.
    """
    if value not in enum.values():
        return str(int(value))
    return enum.Name(value).removeprefix(_prefix(enum.DESCRIPTOR.name)).lower()


def state_name(state: controller_v1.RunState.ValueType) -> str:
    """`running` for RUN_STATE_RUNNING."""
    return enum_name(controller_v1.RunState, state)


def stage_name(stage: controller_v1.Stage.ValueType) -> str:
    """`reward_model` for STAGE_REWARD_MODEL, as in ledger keys and `stage_seconds`; empty where no stage applies."""
    return "" if stage == controller_v1.STAGE_UNSPECIFIED else enum_name(controller_v1.Stage, stage)


def stage_title(stage: str) -> str:
    """`reward model` for `reward_model`: as people read it."""
    return stage.replace("_", " ")


def swap_state_name(state: controller_v1.SwapState.ValueType) -> str:
    """`shifted` for SWAP_STATE_SHIFTED; `unknown` for 0 and for states that are newer than this client."""
    known = state != controller_v1.SWAP_STATE_UNSPECIFIED and state in controller_v1.SwapState.values()
    return enum_name(controller_v1.SwapState, state) if known else "unknown"


@cache
def _prefix(enum: str) -> str:
    """`RUN_STATE_` for RunState."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", enum).upper() + "_"
