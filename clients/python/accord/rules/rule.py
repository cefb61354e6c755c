"""The limits of a field's values. They mean what protovalidate defines, see protos/buf/validate/validate.proto."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration

# Patterns in words.
PATTERNS: Mapping[str, str] = {
    "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$": (
        "must have up to 63 lower-case letters, digits and inner `-`, like demo-2"
    ),
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$": (
        "must have letters, digits, `.`, `_` and `-`, at most 200 characters, and start with a letter or digit"
    ),
}


@dataclass(frozen=True)
class Rule:
    """The limits of a field; None and empty: no such limit. Durations are compared in seconds."""

    # A value that equals the default of its type is not checked: it means "unset". Only for fields without
    # presence; an unset field that has presence is never checked.
    ignore_zero: bool = False
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None
    # Neither infinite nor not a number.
    finite: bool = False
    # Characters.
    min_len: int | None = None
    max_len: int | None = None
    pattern: str = ""
    one_of: tuple[str, ...] = ()
    # The value must be one that the enum names.
    defined_only: bool = False
    # The rule of each element of a repeated field.
    items: Rule | None = None

    def problem(self, value: Any, field: FieldDescriptor | None = None) -> str | None:
        """The problem with a value, or None. `field` is required for values of an enum."""
        if isinstance(value, str):
            return self._text_problem(value)
        if isinstance(value, Duration):
            return self._number_problem(value.seconds + value.nanos / 1e9, " s")
        if not self.defined_only:
            return self._number_problem(value)
        assert field is not None
        assert field.enum_type is not None
        if value in field.enum_type.values_by_number:
            return None
        names = [one.name for one in field.enum_type.values if one.number]
        return f"must be {_listed(names)}, not {value}"

    def _number_problem(self, value: float, unit: str = "") -> str | None:
        fits = (
            (self.gt is None or value > self.gt)
            and (self.gte is None or value >= self.gte)
            and (self.lt is None or value < self.lt)
            and (self.lte is None or value <= self.lte)
            and (not self.finite or math.isfinite(value))
        )
        if fits:
            return None
        bounds = (("at least", self.gte), ("above", self.gt), ("at most", self.lte), ("below", self.lt))
        said = " and ".join(f"{word} {bound:g}{unit}" for word, bound in bounds if bound is not None)
        number = "a finite number" if not said else f"a finite number {said}" if self.finite else said
        return f"must be {number}, not {value:g}{unit}" if unit else f"must be {number}, not {value}"

    def _text_problem(self, value: str) -> str | None:
        if self.min_len is not None and len(value) < self.min_len:
            return f"needs at least {self.min_len} characters"
        if self.max_len is not None and len(value) > self.max_len:
            return f"has {len(value)} characters; at most {self.max_len} are allowed"
        if self.one_of and value not in self.one_of:
            return f"must be {_listed(self.one_of)}, not {value!r}"
        # `$` of a contract's pattern is the end of the text; Python's is also before a last line break.
        if self.pattern and (value.endswith("\n") or not _compiled(self.pattern).search(value)):
            return f"{PATTERNS.get(self.pattern, f'must match {self.pattern}')}, not {value!r}"
        return None


def _listed(names: tuple[str, ...] | list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
