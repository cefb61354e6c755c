"""A researcher's own function as a scorer, loaded from a file: `python:./reward.py:score`. No packaging needed.

The function is one of these, plain or async:

    def score(prompt: list[dict], response: str) -> float            # one item
    def score(prompts: list[list[dict]], responses: list[str]) -> list[float]    # a batch: the parameters are so named

A prompt is a list of `{"role": "user", "content": "..."}`. Further keyword parameters are the scorer's options. What it
raises, and results that are not finite numbers, fail the items concerned; they never become zeros.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from accord.errors import InvalidArgument, PermissionDenied
from accord_reward.scorer import Item, Outcome, Scorer

PREFIX = "python:"
DESCRIPTION = "A function of yours: FILE relative to the service's python_root; its keyword parameters are its options."
_CONCURRENT_CALLS = 16


@dataclass(frozen=True)
class PythonSource:
    """A function in a file as it is now: `digest` (SHA-256 of the file) changes when the file is edited."""

    path: Path
    function: str
    digest: str

    @classmethod
    def find(cls, name: str, root: Path, allowed: bool) -> PythonSource:
        """What `python:FILE:FUNCTION` names; FUNCTION is `score` when left out.

        PermissionDenied/PYTHON_NOT_ALLOWED unless `allowed`; InvalidArgument/UNKNOWN_SCORER: no such FILE below `root`.
        """
        if not allowed:
            raise PermissionDenied(
                f"{name} would run code from a file, which this service does not do; start it with --allow-python",
                reason="PYTHON_NOT_ALLOWED",
            )
        file, _, function = name.removeprefix(PREFIX).strip().partition(":")
        path = (root / file).resolve()
        if not path.is_relative_to(root.resolve()):
            raise _unknown(f"{file} lies outside of {root.resolve()}, the folder that the service may load code from")
        if not path.is_file():
            raise _unknown(
                f"there is no file {path}; write python:FILE:FUNCTION with FILE relative to {root.resolve()}"
            )
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return cls(path, function or "score", digest)

    def load(self) -> Callable[..., Any]:
        """Runs the file and gives its function. InvalidArgument/SCORER_BROKEN if that fails."""
        module_name = f"accord_python_scorer_{self.digest[:16]}"
        spec = importlib.util.spec_from_file_location(module_name, self.path)
        if spec is None or spec.loader is None:
            raise _broken(f"{self.path} is not a Python file (.py)")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses and pickling inside the file look it up there
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[module_name]
            raise _broken(f"{self.path} cannot be loaded: {type(error).__name__}: {error}") from error
        function = getattr(module, self.function, None)
        if not callable(function):
            there = ", ".join(name for name, value in vars(module).items() if inspect.isfunction(value)) or "none"
            raise _broken(f"{self.path} has no function {self.function!r}; functions there: {there}")
        return function  # type: ignore[no-any-return]


class PythonScorer(Scorer):
    """Calls the function; its signature says whether for an item or for a batch, and which options there are."""

    description: ClassVar[str] = DESCRIPTION

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        """InvalidArgument where the signature takes no prompt and response, or not these options."""
        self._function = function
        self._options = dict(options)
        self._async = inspect.iscoroutinefunction(function)
        parameters = inspect.signature(function).parameters
        positional = list(parameters)[:2]
        self._batch = positional == ["prompts", "responses"]
        if not self._batch and positional != ["prompt", "response"]:
            raise _broken(
                f"the function takes ({', '.join(parameters)}); it must take (prompt, response) or (prompts, responses)"
            )
        self._check_options(parameters)

    async def score(self, items: Sequence[Item]) -> Sequence[Outcome]:
        """What the function returns for each item. Plain functions run in a worker thread, async ones concurrently."""
        if self._batch:
            arguments = ([item.messages for item in items], [item.response for item in items])
            return list(await self._call(*arguments))
        if self._async:
            slots = asyncio.Semaphore(_CONCURRENT_CALLS)

            async def one(item: Item) -> Any:
                async with slots:
                    return await self._call(item.messages, item.response)

            answers: list[Outcome] = await asyncio.gather(*(one(item) for item in items))
            return answers
        return await asyncio.to_thread(lambda: [self._plain(item.messages, item.response) for item in items])

    async def _call(self, prompt: Any, response: Any) -> Any:
        if not self._async:
            return await asyncio.to_thread(self._plain, prompt, response)
        try:
            return await self._function(prompt, response, **self._options)
        except SystemExit as error:
            raise RuntimeError(f"the function called exit({error.code})") from error

    def _plain(self, prompt: Any, response: Any) -> Any:
        try:
            return self._function(prompt, response, **self._options)
        except SystemExit as error:  # it may end its item, not the service
            raise RuntimeError(f"the function called exit({error.code})") from error

    def _check_options(self, parameters: Mapping[str, inspect.Parameter]) -> None:
        further = dict(list(parameters.items())[2:])
        takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in further.values())
        for option in self._options:
            if not takes_any and option not in further:
                known = ", ".join(further) or "none"
                raise InvalidArgument.at(f"options.{option}", f"unknown; the function's further parameters: {known}")
        for name, parameter in further.items():
            named = parameter.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            if named and parameter.default is inspect.Parameter.empty and name not in self._options:
                raise InvalidArgument.at(f"options.{name}", "must be set: the function has no default for it")


def _unknown(message: str) -> InvalidArgument:
    return InvalidArgument.at("name", message, reason="UNKNOWN_SCORER")


def _broken(message: str) -> InvalidArgument:
    return InvalidArgument.at("name", message, reason="SCORER_BROKEN")
