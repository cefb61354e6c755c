"""Column types for any text that the contract allows, in any database."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Dialect, String, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

# PostgreSQL's text cannot contain NUL. NUL is written as the unit separator and 0, and the separator as itself and 1.
_NUL, _ESCAPE = "\0", "\x1f"
_ESCAPED = re.compile(_ESCAPE + "([01])")


def escape(text: str) -> str:
    """`text` without NUL."""
    if _NUL not in text and _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE, _ESCAPE + "1").replace(_NUL, _ESCAPE + "0")


def unescape(text: str) -> str:
    """Reverses `escape`."""
    return _ESCAPED.sub(_unescaped, text) if _ESCAPE in text else text


def _unescaped(found: re.Match[str]) -> str:
    return _NUL if found[1] == "0" else _ESCAPE


class AnyText(TypeDecorator[str]):
    """Text of any characters. PostgreSQL compares it by code point in every locale, as SQLite does."""

    impl: type[String] = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return Text(collation="C") if dialect.name == "postgresql" else Text()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else escape(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else unescape(value)

    def bind_processor(self, dialect: Dialect) -> Any:
        """None if the database accepts any text, which saves a call for each value."""
        return super().bind_processor(dialect) if dialect.name == "postgresql" else None

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        """A plain function, because it is called for millions of values."""
        return _read if dialect.name == "postgresql" else None


def _read(value: str | None) -> str | None:
    return _ESCAPED.sub(_unescaped, value) if value is not None and _ESCAPE in value else value


class Digest(AnyText):
    """A digest in hex, or another name of at most 64 characters. Queries may compare it with any text."""

    impl: type[String] = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return String(64, collation="C") if dialect.name == "postgresql" else String(64)

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        """None: stored digests need no unescaping."""
        return None
