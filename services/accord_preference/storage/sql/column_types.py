"""Column types that hold any text the contract can carry, in any database."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Dialect, String, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

# PostgreSQL's texts hold every character but NUL. It is written as the unit separator and 0, that as itself and 1.
_NUL, _ESCAPE = "\0", "\x1f"
_ESCAPED = re.compile(_ESCAPE + "([01])")


def escape(text: str) -> str:
    """`text` without NUL."""
    if _NUL not in text and _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE, _ESCAPE + "1").replace(_NUL, _ESCAPE + "0")


def unescape(text: str) -> str:
    """What `escape` was given."""
    return _ESCAPED.sub(_unescaped, text) if _ESCAPE in text else text


def _unescaped(found: re.Match[str]) -> str:
    return _NUL if found[1] == "0" else _ESCAPE


class AnyText(TypeDecorator[str]):
    """A text of any characters; in PostgreSQL compared by code points, as SQLite does, whatever the locale."""

    impl: type[String] = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return Text(collation="C") if dialect.name == "postgresql" else Text()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else escape(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else unescape(value)

    def bind_processor(self, dialect: Dialect) -> Any:
        """See TypeDecorator. None, and no call for each value, where texts are taken as they are."""
        return super().bind_processor(dialect) if dialect.name == "postgresql" else None

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        """See TypeDecorator. One call for each value, of which there are millions."""
        return _read if dialect.name == "postgresql" else None


def _read(value: str | None) -> str | None:
    return _ESCAPED.sub(_unescaped, value) if value is not None and _ESCAPE in value else value


class Digest(AnyText):
    """A digest in hex, or another name of at most 64 characters; asked for by any text."""

    impl: type[String] = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return String(64, collation="C") if dialect.name == "postgresql" else String(64)

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        """See TypeDecorator. None: what is asked for may be any text, what is kept is a digest."""
        return None
