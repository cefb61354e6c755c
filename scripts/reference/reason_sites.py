"""The places where the code gives errors their reasons, found in the syntax trees of services/ and the SDK."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from accord import errors

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("services", "clients/python/accord")
REASON = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
# Carriers of reasons that are not exceptions, and the form in which the caller sees them.
CARRIERS = {
    "Failed": "failure of a sample",
    "ItemFailure": "failure of an item",
    "PodProblem": "UNAVAILABLE",
    "Refuse": "condition of a Run object",
    "_refuse": "refused engine swap",
    "EngineUse": "refused engine swap",
}
# Reasons that the code computes: expression -> reason -> the parts that provide the values. A transport or a dialect is
# looked up only after its name was found, so UNKNOWN_TRANSPORT and UNKNOWN_DIALECT do not exist.
COMPUTED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "f'UNKNOWN_{kind.upper()}'": {
        "UNKNOWN_ALGORITHM": ("accord_trainer.trainings",),
        "UNKNOWN_ENGINE": ("accord_rollout.service",),
        "UNKNOWN_FORMAT": ("accord.formats",),
        "UNKNOWN_LAUNCHER": ("accord_controller.launchers",),
        "UNKNOWN_METRICS_WRITER": ("accord_trainer.metrics",),
        "UNKNOWN_SCORER": ("accord_reward.scorer_pool",),
        "UNKNOWN_STORE": ("accord_preference.storage",),
    },
    "f'{what.upper()}_NOT_FOUND'": {
        "ANNOTATOR_NOT_FOUND": ("accord_preference.annotators",),
        "COMPLETION_NOT_FOUND": ("accord_preference.prompts",),
        "FEEDBACK_NOT_FOUND": ("accord_preference.feedback",),
        "LEASE_NOT_FOUND": ("accord_preference.tasks",),
        "PROMPT_NOT_FOUND": ("accord_preference.prompts",),
        "SNAPSHOT_NOT_FOUND": ("accord_preference.datasets",),
        "TASK_NOT_FOUND": ("accord_preference.feedback", "accord_preference.tasks"),
    },
}
ERRORS = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.AccordError)
}


@dataclass(frozen=True, order=True)
class Site:
    """A part of the code that gives an error a reason. `part`: a package and a folder or module in it. `code`: the gRPC
    code, or the other carrier of the reason."""

    reason: str
    part: str
    code: str


@cache
def sites() -> tuple[Site, ...]:
    """Every use of a reason. SystemExit if the code uses one in a way that the tables above do not cover."""
    modules = {path: ast.parse(path.read_text()) for path in _sources()}
    takers = _takers(modules.values())
    found = [site for path, tree in modules.items() for site in _Reader(path, tree, takers).read()]
    return tuple(sorted(set(found)))


def _sources() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            # v1 is generated. conformance/checks expects the reasons of services and gives none.
            if path.parent.name != "v1" and path.parts[-3:-1] != ("conformance", "checks"):
                yield path


def _part(path: Path) -> str:
    """The part of a module: `accord_trainer.model` for a module in that folder."""
    base = ROOT / ("services" if path.is_relative_to(ROOT / "services") else "clients/python")
    return ".".join(path.relative_to(base).with_suffix("").parts[:2]).removesuffix(".__init__")


def _takers(trees: Iterable[ast.Module]) -> Mapping[str, int]:
    """The position of the `reason` parameter of each carrier, by name."""
    found = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                fields = (one.target for one in node.body if isinstance(one, ast.AnnAssign))
                names = [one.id for one in fields if isinstance(one, ast.Name)]
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [one.arg for one in node.args.args if one.arg not in ("self", "cls")]
            else:
                continue
            if node.name in CARRIERS and "reason" in names:
                found[node.name] = names.index("reason")
    return found


class _Reader:
    """Reads one module."""

    def __init__(self, path: Path, tree: ast.Module, takers: Mapping[str, int]) -> None:
        self._path, self._part, self._tree, self._takers = path, _part(path), tree, takers
        self._constants = {
            one.targets[0].id: one.value
            for one in tree.body
            if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name)
        }
        self._imported = {
            name.asname or name.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "accord.errors"
            for name in node.names
        }

    def read(self) -> Iterator[Site]:
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call):
                yield from self._called(node)
            elif isinstance(node, ast.ClassDef):
                for value in filter(None, map(_assigned, node.body)):
                    yield from self._sites(value, self._code(node.name))

    def _called(self, call: ast.Call) -> Iterator[Site]:
        name = _name(call.func)
        reasons = [one.value for one in call.keywords if one.arg == "reason"]
        position = self._takers.get(name)
        if position is not None and position < len(call.args):
            reasons.append(call.args[position])
        for value in reasons:
            yield from self._sites(value, self._code(name))
        if not reasons and name in ERRORS and self._is_error(call.func):
            yield Site(ERRORS[name].reason, self._part, ERRORS[name].code.name)

    def _is_error(self, called: ast.expr) -> bool:
        if isinstance(called, ast.Attribute):
            return called.attr == "at" or (isinstance(called.value, ast.Name) and called.value.id == "errors")
        return isinstance(called, ast.Name) and called.id in self._imported

    def _code(self, name: str) -> str:
        return ERRORS[name].code.name if name in ERRORS else CARRIERS.get(name, "")

    def _sites(self, node: ast.expr, code: str) -> Iterator[Site]:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and REASON.fullmatch(node.value):
            if not code:
                raise SystemExit(
                    f"{self._path}:{node.lineno}: add {node.value} to CARRIERS, with the form in which a caller sees it"
                )
            yield Site(node.value, self._part, code)
        elif isinstance(node, ast.IfExp):
            yield from self._sites(node.body, code)
            yield from self._sites(node.orelse, code)
        elif isinstance(node, ast.BoolOp):
            yield from (site for one in node.values for site in self._sites(one, code))
        elif isinstance(node, ast.Name) and node.id in self._constants:
            yield from self._sites(self._constants[node.id], code)
        elif isinstance(node, ast.JoinedStr):
            if (computed := COMPUTED.get(ast.unparse(node))) is None:
                raise SystemExit(f"{self._path}:{node.lineno}: list the values of {ast.unparse(node)} in COMPUTED")
            yield from (Site(reason, part, code) for reason, parts in computed.items() for part in parts)


def _name(called: ast.expr) -> str:
    """The name of the called object; `InvalidArgument` for `InvalidArgument.at`."""
    if isinstance(called, ast.Attribute):
        return _name(called.value) if called.attr == "at" else called.attr
    return called.id if isinstance(called, ast.Name) else ""


def _assigned(node: ast.stmt) -> ast.expr | None:
    """The value of `reason = ...` in a class."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    names = [one.id for one in targets if isinstance(one, ast.Name)]
    return node.value if "reason" in names and isinstance(node, ast.Assign | ast.AnnAssign) else None
