"""Renamed fields, read from services of any version.

A current service sets the new name and, for older clients, the former one. A service that is older than the new name
sets only the former one.
"""

from __future__ import annotations

from accord.controller import v1 as controller_v1
from accord.rollout import v1 as rollout_v1


def resident_weights(
    answer: rollout_v1.GetStatusResponse | rollout_v1.UpdateWeightsResponse | rollout_v1.ActivateWeightsResponse,
) -> rollout_v1.HeldWeights:
    """The weights in the engine's memory, formerly `held`."""
    return answer.resident_weights if answer.HasField("resident_weights") else answer.held


def serving_replicas(status: controller_v1.RunStatus) -> int:
    """The number of replicas that serve a run; older controllers set it under its former name."""
    return status.serving_replicas or status.drawing
