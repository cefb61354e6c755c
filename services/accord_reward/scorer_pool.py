"""From what a request names (scorer, options, model) to the one running scorer that all its callers share."""

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
_KEPT = 64  # scorers that are kept although nobody uses them now


@dataclass(frozen=True)
class Wanted:
    """A scorer as a request names it; `field` is where in the request, for error messages."""

    field: str
    name: str
    options: Mapping[str, Any]
    model_digest: str = ""


@dataclass(frozen=True)
class Described:
    """A scorer that can be named, in one sentence, with the JSON schema of its options."""

    name: str
    description: str
    options_schema: Mapping[str, Any]


@dataclass(frozen=True)
class PythonPolicy:
    """Whether files may be run as scorers, and the folder that they must lie in."""

    allowed: bool
    root: Path


@dataclass(frozen=True)
class _Key:
    name: str
    source: str  # of a python: scorer: digest of the file
    options: str
    model_digest: str


class ScorerPool:
    """Makes scorers on first use and keeps the latest: same name, options and model means same queue, same batches."""

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

    async def get(self, wanted: Wanted) -> Batcher:
        """The running scorer. InvalidArgument (UNKNOWN_SCORER, wrong options with the field named);
        PermissionDenied/PYTHON_NOT_ALLOWED; FailedPrecondition (MODEL_NOT_LOADED, PLUGIN_BROKEN)."""
        try:
            key, make = self._resolve(wanted)
            if key not in self._batchers:
                async with self._making:
                    if key not in self._batchers:
                        # In a thread: a researcher's file may import for seconds.
                        scorer = await asyncio.to_thread(make)
                        self._batchers[key] = Batcher(wanted.name, scorer, self._limits)
                        self._forget_idle()
            self._batchers.move_to_end(key)
            return self._batchers[key]
        except InvalidArgument as error:
            raise _below(wanted.field, error) from error

    def forget_model(self, digest: str) -> None:
        """Lets go of the scorers that use a model, so that its memory is freed when their last batch ended."""
        for key in [key for key in self._batchers if key.model_digest == digest]:
            del self._batchers[key]

    def describe(self) -> list[Described]:
        """Every scorer that can be named here, sorted; one that cannot be imported says why."""
        found = [_described(name) for name in plugins.names(GROUP)]
        if self._python.allowed:
            schema = {"type": "object", "description": "The function's keyword parameters."}
            found.append(Described(f"{PREFIX}FILE:FUNCTION", DESCRIPTION, schema))
        return found

    async def close(self) -> None:
        """Ends all of them."""
        await asyncio.gather(*(batcher.close() for batcher in self._batchers.values()))
        self._batchers.clear()

    def _resolve(self, wanted: Wanted) -> tuple[_Key, Callable[[], Scorer]]:
        options = json.dumps(wanted.options, sort_keys=True)
        if wanted.name.startswith(PREFIX):
            if wanted.model_digest:
                raise InvalidArgument.at("model_digest", "a python: scorer uses no reward model")
            source = PythonSource.find(wanted.name, self._python.root, self._python.allowed)
            key = _Key(f"{source.path}:{source.function}", source.digest, options, "")
            return key, lambda: PythonScorer(source.load(), wanted.options)
        scorer_type = plugins.load(GROUP, wanted.name)
        if wanted.model_digest and not getattr(scorer_type, "uses_model", False):
            raise InvalidArgument.at("model_digest", f"{wanted.name} uses no reward model")
        model = self._models.get(wanted.model_digest, f"{wanted.field}.model_digest") if wanted.model_digest else None
        checked = _checked(scorer_type.options_type, wanted.options)
        context = ScorerContext(model, self._compute, self._max_batch_tokens)
        return _Key(wanted.name, "", options, wanted.model_digest), lambda: scorer_type(checked, context)

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
        return f"unknown; there is: {', '.join(options_type.model_fields) or 'none'}"
    return message.removeprefix("Value error, ")


def _below(field: str, error: InvalidArgument) -> InvalidArgument:
    """The same error with its fields named from the request on."""
    violations = [FieldViolation(f"{field}.{violation.field}", violation.description) for violation in error.violations]
    message = "; ".join(f"{violation.field}: {violation.description}" for violation in violations) or error.message
    return InvalidArgument(message, reason=error.reason, metadata=error.metadata, violations=violations)


def _described(name: str) -> Described:
    try:
        scorer_type = plugins.load(GROUP, name)
        return Described(name, scorer_type.description, scorer_type.options_type.model_json_schema())
    except (AccordError, AttributeError) as error:
        log.warning("scorer %s cannot be used: %s", name, error)
        return Described(name, f"Cannot be used: {error}", {})
