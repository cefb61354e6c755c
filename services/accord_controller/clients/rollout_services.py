"""The rollout services that a run uses, and their addresses."""

from __future__ import annotations

from google.protobuf import json_format

from accord.controller import v1 as controller_v1
from accord_controller.launchers.health import healthy_addresses
from accord_controller.launchers.launcher import Launcher, OnRestart, RolloutSet

# How long services at configured addresses may take to answer.
ANSWER_SECONDS = 30.0


def initial_services(spec: controller_v1.RunSpec) -> controller_v1.RolloutServices:
    """The services that a run begins with."""
    services = controller_v1.RolloutServices(engine=spec.rollout.engine, replicas=spec.rollout.replicas)
    if spec.rollout.HasField("engine_options"):
        services.engine_options.CopyFrom(spec.rollout.engine_options)
    return services


def current_services(status: controller_v1.RunStatus) -> controller_v1.RolloutServices:
    """The services that a run uses now."""
    return status.rollout if status.HasField("rollout") else initial_services(status.resolved_spec)


async def find(
    launcher: Launcher, services: controller_v1.RolloutServices, run_id: str, on_restart: OnRestart | None
) -> list[str]:
    """The addresses of the healthy services. Starts those that are down if the launcher can start them. Unavailable if
    none is healthy."""
    if services.addresses:
        return await healthy_addresses(services.addresses, ANSWER_SECONDS)
    return await launcher.ensure_rollouts(rollout_set(services, run_id), on_restart)


def rollout_set(services: controller_v1.RolloutServices, run_id: str) -> RolloutSet:
    """The set that a launcher starts for these services. Services that a swap brought in belong to the run; others are
    shared."""
    options = json_format.MessageToJson(services.engine_options, indent=None) if services.engine_options.fields else ""
    name = f"rollout.{run_id}.{services.swap}" if services.swap else ""
    return RolloutSet(services.engine, max(1, services.replicas), options, name)
