"""Finds or makes the one scorer that all requests with the same name, options and model share."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from accord import plugins
from accord.errors import AccordError, FieldViolation, InvalidArgument
from accord_reward.batching import Batcher, BatchLimits
from accord_reward.models import Models
from accord_reward.scorer import GROUP, Scorer, ScorerContext
from accord_reward.scorers.python import DESCRIPTION, PREFIX, PythonScorer, PythonSource

log = logging.getLogger(__name__)
_KEPT = 64  # the number of idle scorers that are kept


@dataclass(frozen=True)
class ScorerRequest:
    """A scorer as named in a request. `field` is its path in the request, for error messages."""

    field: str
    name: str
    options: Mapping[str, Any]
    model_digest: str = ""


@dataclass(frozen=True)
class ScorerDescription:
    """An available scorer: one sentence about it and the JSON schema of its options."""

    name: str
    description: str
    options_schema: Mapping[str, Any]


@dataclass(frozen=True)
class PythonPolicy:
    """Whether code in files may run as scorers, and the folder that must contain the files."""

    allowed: bool
    root: Path


@dataclass(frozen=True)
class _Key:
    name: str
    source: str  # for a python: scorer: the digest of its file
    options: str
    model_digest: str


class ScorerPool:
    """Makes scorers on first use and keeps the most recent. The same name, options and model share a queue."""

    def __init__(
        self, models: Models, compute: Executor, limits: BatchLimits, max_batch_tokens: int, python: PythonPolicy
    ) -> None:
        self._models = models
        self._compute = compute
        self._limits = limits
        self._max_batch_tokens = max_batch_tokens
        self._python = python
        self._batchers: OrderedDict[_Key, Batcher] = OrderedDict()
        self._making = asyncio.Lock()

    async def get(self, request: ScorerRequest) -> Batcher:
        """The running scorer. InvalidArgument (UNKNOWN_SCORER, wrong options with the field named);
        PermissionDenied/PYTHON_NOT_ALLOWED; FailedPrecondition (MODEL_NOT_LOADED, PLUGIN_BROKEN)."""
        try:
            key, make = self._resolve(request)
            if key not in self._batchers:
                async with self._making:
                    if key not in self._batchers:
                        # In a thread: a user's file may import for seconds.
                        scorer = await asyncio.to_thread(make)
                        self._batchers[key] = Batcher(request.name, scorer, self._limits)
                        self._forget_idle()
            self._batchers.move_to_end(key)
            return self._batchers[key]
        except InvalidArgument as error:
            raise _prefixed(request.field, error) from error

    def forget_model(self, digest: str) -> None:
        """Drops the scorers that use a model, so that its memory is freed after their last batch."""
        for key in [key for key in self._batchers if key.model_digest == digest]:
            del self._batchers[key]

    def describe(self) -> list[ScorerDescription]:
        """Every available scorer, sorted; the description of a scorer that cannot be imported is the error."""
        found = [_described(name) for name in plugins.names(GROUP)]
        if self._python.allowed:
            schema = {"type": "object", "description": "The function's keyword parameters."}
            found.append(ScorerDescription(f"{PREFIX}FILE:FUNCTION", DESCRIPTION, schema))
        return found

    async def close(self) -> None:
        """Closes all scorers."""
        await asyncio.gather(*(batcher.close() for batcher in self._batchers.values()))
        self._batchers.clear()

    def _resolve(self, request: ScorerRequest) -> tuple[_Key, Callable[[], Scorer]]:
        options = json.dumps(request.options, sort_keys=True)
        if request.name.startswith(PREFIX):
            if request.model_digest:
                raise InvalidArgument.at("model_digest", "a python: scorer uses no reward model")
            source = PythonSource.find(request.name, self._python.root, self._python.allowed)
            key = _Key(f"{source.path}:{source.function}", source.digest, options, "")
            return key, lambda: PythonScorer(source.load(), request.options)
        scorer_type = plugins.load(GROUP, request.name)
        if request.model_digest and not getattr(scorer_type, "uses_model", False):
            raise InvalidArgument.at("model_digest", f"{request.name} uses no reward model")
        model = (
            self._models.get(request.model_digest, f"{request.field}.model_digest") if request.model_digest else None
        )
        checked = _checked(scorer_type.options_type, request.options)
        context = ScorerContext(model, self._compute, self._max_batch_tokens)
        return _Key(request.name, "", options, request.model_digest), lambda: scorer_type(checked, context)

    def _forget_idle(self) -> None:
        for key in [key for key, batcher in self._batchers.items() if batcher.idle][:-1]:
            if len(self._batchers) <= _KEPT:
                return
            del self._batchers[key]


def _checked(options_type: type[BaseModel], options: Mapping[str, Any]) -> BaseModel:
    try:
        return options_type.model_validate(dict(options))
    except ValidationError as error:
        violations = [
            FieldViolation(
                ".".join(["options", *map(str, problem["loc"])]), _say(problem["type"], problem["msg"], options_type)
            )
            for problem in error.errors()
        ]
        said = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise InvalidArgument(said, reason="BAD_OPTIONS", violations=violations) from error


def _say(kind: str, message: str, options_type: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        return f"unknown option; available: {', '.join(options_type.model_fields) or 'none'}"
    return message.removeprefix("Value error, ")


def _prefixed(field: str, error: InvalidArgument) -> InvalidArgument:
    """The same error with field paths that start at the request."""
    violations = [FieldViolation(f"{field}.{violation.field}", violation.description) for violation in error.violations]
    message = "; ".join(f"{violation.field}: {violation.description}" for violation in violations) or error.message
    return InvalidArgument(message, reason=error.reason, metadata=error.metadata, violations=violations)


def _described(name: str) -> ScorerDescription:
    try:
        scorer_type = plugins.load(GROUP, name)
        return ScorerDescription(name, scorer_type.description, scorer_type.options_type.model_json_schema())
    except (AccordError, AttributeError) as error:
        log.warning("scorer %s cannot be used: %s", name, error)
        return ScorerDescription(name, f"Cannot be used: {error}", {})
