"""Scores whether a pattern occurs in a response."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

import regex
from pydantic import Field, field_validator

from accord_reward.scorer import Item, ItemFailure, Options, Outcome, Scorer, ScorerContext


class RegexOptions(Options):
    """A pattern, and the scores of responses with and without it."""

    pattern: str = Field(
        min_length=1, description="A regular expression (syntax of Python's `re`) that may match anywhere."
    )
    found: float = Field(1.0, description="The score of a response that contains the pattern.")
    missing: float = Field(0.0, description="The score of a response that does not.")
    ignore_case: bool = Field(False, description="Whether to ignore upper and lower case.")
    timeout_seconds: float = Field(
        1.0, gt=0, le=60, description="Time limit for one response; a pattern that backtracks longer fails that item."
    )

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            regex.compile(pattern)
        except regex.error as error:
            raise ValueError(f"is not a regular expression: {error}") from error
        return pattern


class RegexScorer(Scorer):
    """`found` if the response contains the pattern, otherwise `missing`.

    Searches run in a worker thread without the interpreter lock and with a time limit: a pattern that backtracks for
    ever (`(a|aa)+$`) fails its own items after `timeout_seconds` each and delays no other scorer.
    """

    description: ClassVar[str] = "One number if the response contains a regular expression, another if it does not."
    options_type: ClassVar[type[Options]] = RegexOptions

    def __init__(self, options: RegexOptions, context: ScorerContext) -> None:
        self._options = options
        self._pattern = regex.compile(options.pattern, regex.IGNORECASE if options.ignore_case else 0)

    async def score(self, items: Sequence[Item]) -> Sequence[Outcome]:
        """`found` or `missing` for each item; a failure if the search took too long."""
        return await asyncio.to_thread(lambda: [self._one(item.response) for item in items])

    def _one(self, text: str) -> Outcome:
        limit = self._options.timeout_seconds
        try:
            hit = self._pattern.search(text, concurrent=True, timeout=limit)
        except TimeoutError:
            return ItemFailure(f"the pattern {self._options.pattern!r} took more than {limit} s; simplify it")
        return self._options.missing if hit is None else self._options.found
