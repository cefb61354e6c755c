"""Field behaviour, read from the descriptors: REQUIRED fields must be set, OUTPUT_ONLY fields are cleared (AIP-203)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from accord.errors import FieldViolation, InvalidArgument

_LIMIT = 20  # violations reported at once


class _Rule(NamedTuple):
    """A field with a behaviour to enforce, or with messages to check (`inside`). Read from the descriptor once, since
    every message of a stream of millions is checked."""

    name: str
    required: bool
    output_only: bool
    repeated: bool
    inside: bool
    has_presence: bool
    default: Any


def check(request: Message) -> None:
    """Clears the output-only fields of `request`. InvalidArgument, REQUIRED_FIELD_MISSING, names the required fields
    that are unset. In a resource that comes with an `update_mask`, only the fields that it names must be set
    (AIP-134)."""
    mask = getattr(request, "update_mask", None)
    paths = mask.paths if isinstance(mask, FieldMask) else ()
    violations = [found for found in _violations(request) if _taken(found.field, paths)][:_LIMIT]
    if violations:
        named = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise InvalidArgument(named, reason="REQUIRED_FIELD_MISSING", violations=violations)


def _taken(field: str, paths: Iterable[str]) -> bool:
    """Whether a mask names this field of a request (`run.spec.model`), or names no field of its message."""
    below = field.partition(".")[2]
    named = any(f"{below}.".startswith(f"{path}.") for path in paths)
    return named or not any(below.startswith(f"{path.partition('.')[0]}.") for path in paths)


@cache
def _rules(descriptor: Descriptor) -> tuple[_Rule, ...]:
    return tuple(rule for rule in map(_rule, descriptor.fields) if rule.required or rule.output_only or rule.inside)


def _rule(field: FieldDescriptor) -> _Rule:
    behaviours = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    inside = field.message_type is not None and _matters(field.message_type)
    return _Rule(
        field.name,
        field_behavior_pb2.REQUIRED in behaviours,
        field_behavior_pb2.OUTPUT_ONLY in behaviours,
        field.is_repeated,
        inside,
        field.has_presence,
        None if field.is_repeated or field.has_presence else field.default_value,
    )


@cache
def _matters(message: Descriptor) -> bool:
    """Whether messages of this type, or those inside them, have a behaviour to enforce."""
    return any(
        {field_behavior_pb2.REQUIRED, field_behavior_pb2.OUTPUT_ONLY}
        & {*field.GetOptions().Extensions[field_behavior_pb2.field_behavior]}
        for below in _below(message, set())
        for field in below.fields
    )


def _below(message: Descriptor, seen: set[str]) -> Iterator[Descriptor]:
    """`message` and the types of all messages that it can contain, Accord's only, each once."""
    if message.full_name in seen or not message.full_name.startswith("accord."):
        return
    seen.add(message.full_name)
    yield message
    for field in message.fields:
        if field.message_type is not None:
            yield from _below(field.message_type, seen)


def _violations(message: Message) -> list[FieldViolation]:
    found: list[FieldViolation] = []
    for name, required, output_only, repeated, inside, has_presence, default in _rules(message.DESCRIPTOR):
        if output_only:
            message.ClearField(name)
            continue
        value = getattr(message, name)
        if repeated:
            if required and not value:
                found.append(FieldViolation(name, "must not be empty"))
            if inside:
                for index, item in enumerate(value):
                    if below := _violations(item):
                        found += _behind(f"{name}[{index}]", below)
        elif not (message.HasField(name) if has_presence else value != default):
            if required:
                found.append(FieldViolation(name, "must be set"))
        elif inside and (below := _violations(value)):
            found += _behind(name, below)
    return found


def _behind(field: str, violations: list[FieldViolation]) -> list[FieldViolation]:
    return [FieldViolation(f"{field}.{violation.field}", violation.description) for violation in violations]
