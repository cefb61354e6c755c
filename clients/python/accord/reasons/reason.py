"""The meaning of an error reason, and its remedy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """`meaning` describes the error, `remedy` the action that the reader should take."""

    meaning: str
    remedy: str
