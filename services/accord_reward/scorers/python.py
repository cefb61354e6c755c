"""Your own function as a scorer, loaded from a file: `python:./reward.py:score`. No packaging needed.

The function has one of these signatures, plain or async:

    def score(prompt: list[dict], response: str) -> float            # one item
    def score(prompts: list[list[dict]], responses: list[str]) -> list[float]    # a batch; the parameter names decide

A prompt is a list of `{"role": "user", "content": "..."}`. Further keyword parameters are the scorer's options. An
exception, or a result that is not a finite number, fails the items concerned; it never becomes a zero.
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
DESCRIPTION = (
    "Your own function: FILE is relative to the service's python_root; its keyword parameters are its options."
)
_CONCURRENT_CALLS = 16


@dataclass(frozen=True)
class PythonSource:
    """A function in a file. `digest` (SHA-256 of the file) changes when the file is edited."""

    path: Path
    function: str
    digest: str

    @classmethod
    def find(cls, name: str, root: Path, allowed: bool) -> PythonSource:
        """The function that `python:FILE:FUNCTION` names; FUNCTION defaults to `score`.

        PermissionDenied/PYTHON_NOT_ALLOWED unless `allowed`; InvalidArgument/UNKNOWN_SCORER: no such FILE below `root`.
        """
        if not allowed:
            raise PermissionDenied(
                f"{name} would run code from a file, which this service does not allow; start it with --allow-python",
                reason="PYTHON_NOT_ALLOWED",
            )
        file, _, function = name.removeprefix(PREFIX).strip().partition(":")
        path = (root / file).resolve()
        if not path.is_relative_to(root.resolve()):
            raise _unknown(f"{file} is outside {root.resolve()}, the folder that the service may load code from")
        if not path.is_file():
            raise _unknown(f"{path} does not exist; write python:FILE:FUNCTION with FILE relative to {root.resolve()}")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return cls(path, function or "score", digest)

    def load(self) -> Callable[..., Any]:
        """Runs the file and returns its function. InvalidArgument/SCORER_BROKEN if that fails."""
        module_name = f"accord_python_scorer_{self.digest[:16]}"
        spec = importlib.util.spec_from_file_location(module_name, self.path)
        if spec is None or spec.loader is None:
            raise _broken(f"{self.path} is not a Python file (.py)")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses and pickling in the file look it up there
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[module_name]
            raise _broken(f"{self.path} cannot be loaded: {type(error).__name__}: {error}") from error
        function = getattr(module, self.function, None)
        if not callable(function):
            there = ", ".join(name for name, value in vars(module).items() if inspect.isfunction(value)) or "none"
            raise _broken(f"{self.path} has no function {self.function!r}; available: {there}")
        return function  # type: ignore[no-any-return]


class PythonScorer(Scorer):
    """Calls the function. Its signature determines whether it takes an item or a batch, and which options it has."""

    description: ClassVar[str] = DESCRIPTION

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        """InvalidArgument if the signature does not take prompt and response, or these options."""
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
        """The function's result for each item. Plain functions run in a worker thread, async ones concurrently."""
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
        except SystemExit as error:  # it may fail its item, not end the service
            raise RuntimeError(f"the function called exit({error.code})") from error

    def _check_options(self, parameters: Mapping[str, inspect.Parameter]) -> None:
        further = dict(list(parameters.items())[2:])
        takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in further.values())
        for option in self._options:
            if not takes_any and option not in further:
                known = ", ".join(further) or "none"
                raise InvalidArgument.at(f"options.{option}", f"unknown option; available: {known}")
        for name, parameter in further.items():
            named = parameter.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            if named and parameter.default is inspect.Parameter.empty and name not in self._options:
                raise InvalidArgument.at(f"options.{name}", "must be set; the function has no default for it")


def _unknown(message: str) -> InvalidArgument:
    return InvalidArgument.at("name", message, reason="UNKNOWN_SCORER")


def _broken(message: str) -> InvalidArgument:
    return InvalidArgument.at("name", message, reason="SCORER_BROKEN")
