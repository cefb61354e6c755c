"""Fields of pydantic models: type, default, limits, meaning."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

LIMITS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "min_length": "length >=", "max_length": "length <="}


def type_of(annotation: Any) -> str:
    """A type as a user would write it: `integer`, `text`, `one of a, b`, `list of text`."""
    if annotation in (types.NoneType, None):
        return "null"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "one of " + ", ".join(f"`{each}`" for each in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_of(each) for each in arguments)
    if origin is typing.Annotated:
        return type_of(arguments[0])
    if isinstance(origin, type) and issubclass(origin, Sequence | Set):
        return f"list of {type_of(arguments[0])}"
    if origin is dict or (isinstance(origin, type) and hasattr(origin, "keys")):
        return f"map of {type_of(arguments[0])} to {type_of(arguments[1])}"
    names = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path", Any: "any value"}
    if annotation in names:
        return names[annotation]
    return getattr(annotation, "__name__", str(annotation))


def limits_of(field: FieldInfo) -> str:
    """`> 0, <= 1`."""
    found = []
    for rule in field.metadata:
        for name, sign in LIMITS.items():
            if (value := getattr(rule, name, None)) is not None:
                found.append(f"{sign} {value}")
    return ", ".join(found)


def default_of(field: FieldInfo) -> str:
    """A default as a user would write it; empty if the field is required."""
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list, frozenset)):
        return "[" + ", ".join(map(str, value)) + "]"
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        return str(value)
    return str(value) if value != "" else '""'


def own_fields(model: type[BaseModel], parent: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields that `model` adds to its parent's fields or whose default it changes."""
    inherited = parent.model_fields
    return {
        name: field
        for name, field in model.model_fields.items()
        if name not in inherited or repr(inherited[name]) != repr(field)
    }
