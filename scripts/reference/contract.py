"""The description of a contract field on the pages: its type, its limits and its comment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from accord.rules.check import rule_of
from accord.rules.rule import PATTERNS, Rule
from reference.markdown import code

# In plain words.
SCALARS = {
    FieldDescriptor.TYPE_STRING: "text",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "true or false",
    FieldDescriptor.TYPE_INT32: "integer",
    FieldDescriptor.TYPE_INT64: "integer",
    FieldDescriptor.TYPE_UINT32: "integer",
    FieldDescriptor.TYPE_UINT64: "integer",
    FieldDescriptor.TYPE_SINT64: "integer",
    FieldDescriptor.TYPE_FLOAT: "number",
    FieldDescriptor.TYPE_DOUBLE: "number",
}
# The same in the words of Protocol Buffers.
PROTOBUF = {
    number: code(name.removeprefix("TYPE_").lower())
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_") and isinstance(number, int)
}
UNSIGNED = (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64)
Named = Callable[[Descriptor | EnumDescriptor], str]


def type_of(field: FieldDescriptor, named: Named, scalars: Mapping[int, str] = SCALARS) -> str:
    """`list of integer`; messages and enums are named by `named`."""

    def one(of: FieldDescriptor) -> str:
        if of.message_type is not None:
            return named(of.message_type)
        return named(of.enum_type) if of.enum_type is not None else scalars[of.type]

    entry = map_entry(field)
    if entry is not None:
        return f"map of {one(entry.fields[0])} to {one(entry.fields[1])}"
    return f"list of {one(field)}" if field.is_repeated else one(field)


def map_entry(field: FieldDescriptor) -> Descriptor | None:
    """The entry of a map; None for any other field."""
    entry = field.message_type
    return entry if entry is not None and entry.GetOptions().map_entry else None


def limits_of(field: FieldDescriptor) -> str:
    """The limits from the rules of the contract, such as `> 0, <= 1`."""
    rule = rule_of(field)
    if rule is not None and rule.items is not None:
        return f"each: {', '.join(_limits(rule.items))}"
    found = _limits(rule) if rule is not None else []
    if not found and field.type in UNSIGNED:
        found.append(">= 0")
    return ", ".join(found)


def linked_pages(comment: str) -> str:
    """A comment with links to the pages of docs/ that it names."""
    return re.sub(r"\bdocs/([a-z-]+)\.md\b", r"[\1](../\1.md)", comment)


def _limits(rule: Rule) -> list[str]:
    bounds = ((">", rule.gt), (">=", rule.gte), ("<", rule.lt), ("<=", rule.lte))
    found = [f"{sign} {bound:,g}" for sign, bound in bounds if bound is not None]
    if rule.min_len is not None:
        found.append(f"at least {rule.min_len:,} characters")
    if rule.max_len is not None:
        found.append(f"at most {rule.max_len:,} characters")
    if rule.one_of:
        found.append(f"one of {', '.join(map(code, rule.one_of))}")
    if rule.pattern:
        found.append(PATTERNS.get(rule.pattern, f"must match {code(rule.pattern)}").removeprefix("must have "))
    if rule.defined_only:
        found.append("a value of the enum")
    if rule.finite and not found:
        found.append("finite")
    return found
