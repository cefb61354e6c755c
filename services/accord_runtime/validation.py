"""Field behaviour, read from the descriptors: REQUIRED fields must be set, OUTPUT_ONLY fields are cleared (AIP-203)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from accord.errors import FieldViolation, InvalidArgument

_LIMIT = 20  # violations told at once


def check(request: Message) -> None:
    """Clears output-only fields of `request` and raises InvalidArgument naming every required field that is unset."""
    violations = [violation for violation, _ in zip(_violations(request, ""), range(_LIMIT), strict=False)]
    if violations:
        named = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise InvalidArgument(named, reason="REQUIRED_FIELD_MISSING", violations=violations)


@cache
def _rules(descriptor: Descriptor) -> tuple[tuple[FieldDescriptor, bool, bool], ...]:
    """(field, required, output only) of each field that has a behaviour to enforce or messages to look into."""
    rules = []
    for field in descriptor.fields:
        behaviours = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        required = field_behavior_pb2.REQUIRED in behaviours
        output_only = field_behavior_pb2.OUTPUT_ONLY in behaviours
        if required or output_only or _is_ours(field):
            rules.append((field, required, output_only))
    return tuple(rules)


def _is_ours(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name.startswith("accord.")


def _violations(message: Message, prefix: str) -> Iterator[FieldViolation]:
    for field, required, output_only in _rules(message.DESCRIPTOR):
        path = prefix + field.name
        if output_only:
            message.ClearField(field.name)
            continue
        value = getattr(message, field.name)
        if field.is_repeated:
            if required and not value:
                yield FieldViolation(path, "must not be empty")
            if _is_ours(field):
                for index, item in enumerate(value):
                    yield from _violations(item, f"{path}[{index}].")
        elif not _is_set(message, field, value):
            if required:
                yield FieldViolation(path, "must be set")
        elif _is_ours(field):
            yield from _violations(value, f"{path}.")


def _is_set(message: Message, field: FieldDescriptor, value: object) -> bool:
    if field.has_presence:
        return message.HasField(field.name)
    return bool(value != field.default_value)
