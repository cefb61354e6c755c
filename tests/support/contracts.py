"""Every service, call and message of today's contracts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor

from accord.artifact import v1 as artifact_v1
from accord.controller import v1 as controller_v1
from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.rollout import v1 as rollout_v1
from accord.trainer import v1 as trainer_v1
from accord.usage import v1 as usage_v1

ROOT = Path(__file__).resolve().parents[2]
FILES: tuple[FileDescriptor, ...] = (
    artifact_v1.ARTIFACT_SERVICE,
    controller_v1.RUN_SERVICE,
    preference_v1.ANNOTATOR_SERVICE,
    preference_v1.PREFERENCE_SERVICE,
    reward_v1.REWARD_SERVICE,
    rollout_v1.ROLLOUT_SERVICE,
    trainer_v1.TRAINER_SERVICE,
    usage_v1.USAGE_SERVICE,
)
SERVICES: list[ServiceDescriptor] = [service for file in FILES for service in file.services_by_name.values()]
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]


def messages(message: Descriptor, seen: set[str] | None = None) -> Iterator[Descriptor]:
    """`message` and the messages of the contracts below it, each once."""
    seen = set() if seen is None else seen
    if message.full_name in seen or not message.full_name.startswith("accord."):
        return
    seen.add(message.full_name)
    yield message
    for field in message.fields:
        if field.message_type is not None:
            yield from messages(field.message_type, seen)
