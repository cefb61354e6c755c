"""Requests just inside and just outside of the limits that the contracts state, made from the descriptors."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from accord.rules.check import output_only, required, rule_of
from accord.rules.rule import Rule

STEP = 1e-6  # between numbers that are not whole
MATCHING = "demo-2"  # what every pattern of the contracts takes
NOT_MATCHING = ("-demo", "a b", "demo\n", "Ä", "x" * 201)


@dataclass(frozen=True)
class Limit:
    """A field with a rule, by the fields that lead to it from a message."""

    fields: tuple[FieldDescriptor, ...]
    rule: Rule

    @property
    def path(self) -> str:
        """As in a violation: `run.spec.iterations`, `scorers[0].scale`."""
        parts = [f"{field.name}[0]" if field.is_repeated else field.name for field in self.fields]
        return ".".join(parts)

    def request(self, value: Any) -> Message:
        """A message of the first field's type with all that is required, and `value` in the field."""
        message = filled(self.fields[0].containing_type)
        at: Any = message
        for field in self.fields[:-1]:
            if field.is_repeated:
                holder = getattr(at, field.name)
                at = holder[0] if holder else holder.add()
            else:
                at = getattr(at, field.name)
                at.SetInParent()
            fill(at)
        last = self.fields[-1]
        at.ClearField(last.name)
        if last.is_repeated:
            getattr(at, last.name).append(value)
        elif isinstance(value, Message):
            getattr(at, last.name).CopyFrom(value)
        else:
            setattr(at, last.name, value)
        return message

    def outside(self) -> list[Any]:
        """Values that are refused."""
        return list(_outside(self.rule.items or self.rule, self.fields[-1]))

    def inside(self) -> list[Any]:
        """Values that are accepted, as close to those as there are."""
        return list(_inside(self.rule.items or self.rule, self.fields[-1]))


def limits(message: Descriptor, without: Collection[str] = ()) -> Iterator[Limit]:
    """Every field with a rule in `message` and below, except in messages named `without`."""
    for field in message.fields:
        if output_only(field) or (field.message_type is not None and field.message_type.full_name in without):
            continue
        if (rule := rule_of(field)) is not None:
            yield Limit((field,), rule)
        below = field.message_type
        if below is not None and below.full_name.startswith("accord.") and not below.GetOptions().map_entry:
            for limit in limits(below, without):
                yield Limit((field, *limit.fields), limit.rule)


def filled(message: Descriptor) -> Message:
    """A message with everything that is required."""
    made = GetMessageClass(message)()
    fill(made)
    return made


def fill(message: Message) -> None:
    """Sets what is required and unset."""
    for field in message.DESCRIPTOR.fields:
        if not required(field) or output_only(field):
            continue
        value = getattr(message, field.name)
        if field.is_repeated:
            if not value:
                if field.message_type is not None:
                    fill(value.add())
                else:
                    value.append(_plain(field))
        elif field.message_type is not None:
            if not message.HasField(field.name):
                value.SetInParent()
                if isinstance(value, Duration):
                    value.seconds = 3600
            fill(value)
        elif value == field.default_value:
            setattr(message, field.name, _plain(field))


def _plain(field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return next(value.number for value in field.enum_type.values if value.number)
    return MATCHING if field.type == FieldDescriptor.TYPE_STRING else 1


def _outside(rule: Rule, field: FieldDescriptor) -> Iterator[Any]:
    yield from _numbers(rule, field, (rule.gte, -1), (rule.gt, 0), (rule.lte, 1))
    if rule.finite:
        yield from (math.inf, -math.inf, math.nan)
    if field.message_type is None and (rule.gt is not None or rule.lte is not None):
        yield math.nan
    if rule.max_len is not None:
        yield "x" * (rule.max_len + 1)
    if rule.min_len is not None:
        yield "x" * (rule.min_len - 1)
    if rule.pattern:
        yield from NOT_MATCHING
    if rule.one_of:
        yield "nothing of these"
    if rule.defined_only:
        yield from (99, -1)


def _inside(rule: Rule, field: FieldDescriptor) -> Iterator[Any]:
    yield from _numbers(rule, field, (rule.gte, 0), (rule.gt, 1), (rule.lte, 0))
    if rule.ignore_zero:
        yield field.default_value
    if rule.finite and rule.gte is rule.gt is None:
        yield from (1.0, 0.5)
    if rule.max_len is not None:
        yield "ä" * rule.max_len
    if rule.min_len is not None:
        yield "x" * rule.min_len
    if rule.pattern:
        yield from (MATCHING, "a")
    yield from rule.one_of
    if rule.defined_only:
        assert field.enum_type is not None
        yield from (value.number for value in field.enum_type.values if value.number or not required(field))


def _numbers(rule: Rule, field: FieldDescriptor, *bounds: tuple[float | None, int]) -> Iterator[Any]:
    """The bound of each pair, moved by so many steps. A zero that stands for a default is one step further."""
    for bound, steps in bounds:
        if bound is None:
            continue
        if field.message_type is not None:
            yield _duration(bound + steps)
        elif field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
            yield bound + steps * STEP
        else:
            number = int(bound) + steps
            yield number - 1 if rule.ignore_zero and not number else number


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds))
