"""What a reason of an error means and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """`meaning` says what happened, `remedy` what the reader should do."""

    meaning: str
    remedy: str
