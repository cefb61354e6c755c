"""Checks requests by the rules of the contracts: output-only fields are cleared (AIP-203), required fields must be set,
and values must be within their limits."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache

from google.protobuf.descriptor import Descriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from accord.errors import InvalidArgument
from accord.rules.check import MOST, MUST_BE_SET, below, output_only, violations

# Messages whose limits their handler checks: a run, because other checks need the controller, and the records of
# streams of millions, in the loop that reads them. Their required fields are checked here.
HANDLED = frozenset(
    {"accord.controller.v1.Run", "accord.preference.v1.ImportRecord", "accord.trainer.v1.ExperienceChunk"}
)


def check(request: Message) -> None:
    """Clears output-only fields of `request` and raises InvalidArgument with the invalid fields, at most 20. If the
    request has an `update_mask`, only the fields of the resource that it names are checked (AIP-134)."""
    _clear(request)
    mask = getattr(request, "update_mask", None)
    if isinstance(mask, FieldMask) and mask.paths:
        wrong = violations(request, unlimited=HANDLED, most=sys.maxsize)
        wrong = [violation for violation in wrong if _taken(violation.field, mask.paths)][:MOST]
    else:
        wrong = violations(request, unlimited=HANDLED)
    if wrong:
        named = "; ".join(f"{violation.field}: {violation.description}" for violation in wrong)
        missing = any(violation.description in MUST_BE_SET for violation in wrong)
        raise InvalidArgument(named, reason="REQUIRED_FIELD_MISSING" if missing else None, violations=wrong)


def _taken(field: str, paths: Iterable[str]) -> bool:
    """Whether a field of a request (`run.spec.model`) is named by a mask, or is outside the message that the mask
    applies to."""
    path_in_resource = field.partition(".")[2]
    named = any(f"{path_in_resource}.".startswith(f"{path}.") for path in paths)
    return named or not any(path_in_resource.startswith(f"{path.partition('.')[0]}.") for path in paths)


def _clear(message: Message) -> None:
    """Clears the output-only fields of `message` and of the messages in it."""
    cleared, inside, repeated = _output_only(message.DESCRIPTOR)
    for name in cleared:
        message.ClearField(name)
    for name in inside:
        if message.HasField(name):
            _clear(getattr(message, name))
    for name in repeated:
        for item in getattr(message, name):
            _clear(item)


@cache
def _output_only(message: Descriptor) -> tuple[list[str], list[str], list[str]]:
    """The fields to clear, and the fields, single and repeated, whose messages have such fields."""
    cleared = [field.name for field in message.fields if output_only(field)]
    inside = [
        field
        for field in message.fields
        if field.message_type is not None and not output_only(field) and _has_output_only(field.message_type)
    ]
    return (
        cleared,
        [field.name for field in inside if not field.is_repeated],
        [field.name for field in inside if field.is_repeated],
    )


@cache
def _has_output_only(message: Descriptor) -> bool:
    return any(output_only(field) for found in below(message) for field in found.fields)
