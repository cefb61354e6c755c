"""Printing: results go to stdout, everything else to stderr, so that pipes receive results only."""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

# A pipe has no width; rich would assume 80.
PIPE_COLUMNS = 120

if TYPE_CHECKING:
    from rich.console import Console


@cache
def out() -> Console:
    """The console of results."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    return console


@cache
def err() -> Console:
    """The console of progress and messages."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def note(message: str) -> None:
    """A message on stderr, never interpreted as markup."""
    err().print(message, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def clean(text: str) -> str:
    """Makes text from models and people safe for a terminal: characters that could move the cursor, colour the screen
    or change the direction of writing are shown as `\\x1b` and the like; line ends and tabs stay."""
    return text.replace("\r\n", "\n").translate(_SHOWN)


_UNSAFE = (*range(0x00, 0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SHOWN = {code: f"\\x{code:02x}" for code in _UNSAFE if chr(code) not in "\n\t"}
