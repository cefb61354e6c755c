"""Checks a message against the rules of its contract: required fields that are unset, values out of range."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from accord.errors import FieldViolation
from accord.rules.rule import Rule
from accord.rules.table import RULES

MOST = 20  # violations that one error names
# The problem of an unset required field: a single one, a repeated one.
MUST_BE_SET = ("must be set", "must not be empty")


def violations(message: Message, *, unlimited: Collection[str] = (), most: int = MOST) -> list[FieldViolation]:
    """The first `most` violations, by the path of the field. Output-only fields are not checked.

    `unlimited`: full names of messages that are checked for required fields only; their limits are checked elsewhere.
    """
    return _violations(message, _program(message.DESCRIPTOR, frozenset(unlimited), True), most)


def rule_of(field: FieldDescriptor) -> Rule | None:
    """The limits of a field; None if it has none."""
    found = RULES.get(field.full_name)
    return replace(found, ignore_zero=False) if found is not None and field.has_presence else found


def required(field: FieldDescriptor) -> bool:
    """Whether the field must be set."""
    return field_behavior_pb2.REQUIRED in _behaviours(field)


def output_only(field: FieldDescriptor) -> bool:
    """Whether only the service sets the field."""
    return field_behavior_pb2.OUTPUT_ONLY in _behaviours(field)


def below(message: Descriptor) -> list[Descriptor]:
    """`message` and the types of all messages that it can contain, each once; only Accord's own."""
    return list(_below(message, set()))


class _Check(NamedTuple):
    """A field that has something to check, itself or in the messages that it holds. Compiled once for each type of
    message, because every message of a stream of millions is checked."""

    name: str
    required: bool
    rule: Rule | None
    ignore_zero: bool
    repeated: bool
    inside: tuple[_Check, ...]
    has_presence: bool
    default: Any
    field: FieldDescriptor


def _violations(message: Message, program: tuple[_Check, ...], most: int) -> list[FieldViolation]:
    found: list[FieldViolation] = []
    for name, needed, rule, ignore_zero, repeated, inside, has_presence, default, field in program:
        value = getattr(message, name)
        if repeated:
            if needed and not value:
                found.append(FieldViolation(name, MUST_BE_SET[1]))
            if inside:
                for index, item in enumerate(value):
                    if wrong := _violations(item, inside, most - len(found)):
                        found += _behind(f"{name}[{index}]", wrong)
                        if len(found) >= most:
                            return found
            elif rule is not None and rule.items is not None:
                for index, item in enumerate(value):
                    if problem := rule.items.problem(item, field):
                        found.append(FieldViolation(f"{name}[{index}]", problem))
                        if len(found) >= most:
                            return found
        else:
            is_set = message.HasField(name) if has_presence else value != default
            if not is_set and needed:
                found.append(FieldViolation(name, MUST_BE_SET[0]))
            elif rule is not None and (is_set or not (has_presence or ignore_zero)):
                if problem := rule.problem(value, field):
                    found.append(FieldViolation(name, problem))
            elif inside and is_set and (wrong := _violations(value, inside, most - len(found))):
                found += _behind(name, wrong)
        if len(found) >= most:
            return found
    return found


def _behind(field: str, wrong: list[FieldViolation]) -> list[FieldViolation]:
    return [FieldViolation(f"{field}.{violation.field}", violation.description) for violation in wrong]


@cache
def _program(message: Descriptor, unlimited: frozenset[str], limits: bool) -> tuple[_Check, ...]:
    """The fields of a message that need a check. No message of the contracts can contain itself."""
    limits = limits and message.full_name not in unlimited
    checks = (_check(field, unlimited, limits) for field in message.fields if not output_only(field))
    return tuple(check for check in checks if check.required or check.rule is not None or check.inside)


def _check(field: FieldDescriptor, unlimited: frozenset[str], limits: bool) -> _Check:
    rule = rule_of(field) if limits else None
    ours = field.message_type is not None and field.message_type.full_name.startswith("accord.")
    return _Check(
        field.name,
        required(field),
        rule,
        rule is not None and rule.ignore_zero,
        field.is_repeated,
        _program(field.message_type, unlimited, limits) if ours and not _is_map(field) else (),
        field.has_presence,
        None if field.is_repeated or field.has_presence else field.default_value,
        field,
    )


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


@cache
def _behaviours(field: FieldDescriptor) -> frozenset[int]:
    return frozenset(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])


def _below(message: Descriptor, seen: set[str]) -> Iterator[Descriptor]:
    if message.full_name in seen or not message.full_name.startswith("accord."):
        return
    seen.add(message.full_name)
    yield message
    for field in message.fields:
        if field.message_type is not None:
            yield from _below(field.message_type, seen)
