"""Run files: a Run as YAML, checked field by field before anything is sent.

    apiVersion: accord.dev/v1
    kind: Run
    metadata: {name: demo}
    spec: {model: ./model, iterations: 2, ...}       # accord.controller.v1.RunSpec, in camelCase or snake_case

JSONL files are relative to the run file; models, `python:` scorers and paths in overrides are relative to the working
directory. All become absolute here: the controller may run in another directory.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from accord import _yaml
from accord.controller import v1 as controller_v1
from accord.errors import InvalidArgument, NotFound
from accord.rules.check import violations

API_VERSION = "accord.dev/v1"
KIND = "Run"
_FREE = ("google.protobuf.Struct",)  # options, which algorithms and scorers check
_DATA = {"accord.controller.v1.PromptSource.files", "accord.controller.v1.ImportedPreferences.files"}
_MODELS = {"accord.controller.v1.RunSpec.model", "accord.controller.v1.RewardModelSpec.model"}
_SCORERS = {"accord.reward.v1.ScorerSpec.name"}


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> controller_v1.Run:
    """The Run that a file describes, with `key=value` overrides (`iterations=3`, `spec.policy.options.beta=0.1`,
    `metadata.name=other`; values are YAML).

    NotFound if there is no such file; InvalidArgument names the file, the field and the problem.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"There is no run file {path}", reason="NO_RUN_FILE") from error
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{path}: not UTF-8 text: {error}", reason="BAD_RUN_FILE") from error
    try:
        document = _yaml.load(text)
        tree = _Tree(document)
        tree.resolve_paths(path.absolute().parent, Path.cwd())
        for override in overrides:
            tree.override(override)
        run = tree.run()
        _check_limits(run.spec)
        return run
    except InvalidArgument as error:
        raise InvalidArgument(
            f"{path}: {error.message}", reason="BAD_RUN_FILE", metadata={"file": str(path)}, violations=error.violations
        ) from error


def load_edits(run_id: str, assignments: Sequence[str]) -> tuple[controller_v1.Run, list[str]]:
    """A Run with the values of `key=value` assignments, and the fields that they set (`rollout.engine_options`), each
    as a whole. InvalidArgument names the field and the problem.
    """
    tree = _Tree({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": run_id}, "spec": {}})
    fields: dict[str, None] = {}
    for assignment in assignments:
        tree.override(assignment)
        fields[_named(assignment.partition("=")[0].strip())] = None
    return tree.run(), list(fields)


def _named(key: str) -> str:
    """The field of the spec that contains a key, as in the contract; free-form options and lists count as one field."""
    parts = key.removeprefix("spec.").split(".")
    if parts[0] == "metadata":
        raise InvalidArgument.at(key, "a run cannot be renamed")
    message, names = controller_v1.RunSpec.DESCRIPTOR, []
    for part in parts:
        field = _field(message, part, key)
        names.append(field.name)
        if field.message_type is None or field.is_repeated or field.message_type.full_name in _FREE:
            break
        message = field.message_type
    return ".".join(names)


def run_of(document: Any, base: Path) -> controller_v1.Run:
    """The Run that a document (not a file) describes; all paths are relative to `base`. InvalidArgument names the field
    and the problem."""
    tree = _Tree(document)
    tree.resolve_paths(base, base)
    return tree.run()


class _Tree:
    """A run file as nested dicts, with field names as in the contract."""

    def __init__(self, document: Any) -> None:
        if not isinstance(document, dict):
            raise InvalidArgument("a run file must be a mapping of apiVersion, kind, metadata and spec")
        _only(document, ("apiVersion", "kind", "metadata", "spec"), "")
        for key, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
            if document.get(key) != wanted:
                raise InvalidArgument.at(key, f"must be {wanted}, not {document.get(key)!r}")
        metadata = document.get("metadata")
        if not isinstance(metadata, dict):
            raise InvalidArgument.at("metadata", "must be a mapping with `name`, the run's name")
        _only(metadata, ("name",), "metadata.")
        if not isinstance(metadata.get("name"), str) or not metadata["name"]:
            raise InvalidArgument.at("metadata.name", f"must be the run's name, not {metadata.get('name')!r}")
        self._name: str = metadata["name"]
        self._spec: dict[str, Any] = _checked(document.get("spec"), controller_v1.RunSpec.DESCRIPTOR, "spec")

    def resolve_paths(self, base: Path, working: Path) -> None:
        """Data files are relative to `base`, models and scorers to `working`."""
        self._spec = _resolved(self._spec, controller_v1.RunSpec.DESCRIPTOR, (base, working))

    def override(self, assignment: str) -> None:
        """Applies one `key=value`."""
        key, equals, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise InvalidArgument(f"the override {assignment!r} does not have the form key=value")
        value = _yaml.load(text)
        if parts == ["metadata", "name"]:
            if not isinstance(value, str) or not value:
                raise InvalidArgument.at("metadata.name", f"must be the run's name, not {value!r}")
            self._name = value
        elif parts[0] == "metadata":
            raise InvalidArgument.at(key, "metadata has only `name`")
        else:
            parts = parts[1:] if parts[0] == "spec" else parts
            if not parts:
                raise InvalidArgument.at(key, "must name a field of the spec, for example spec.iterations")
            _assign(self._spec, controller_v1.RunSpec.DESCRIPTOR, parts, value, "spec")

    def run(self) -> controller_v1.Run:
        run = controller_v1.Run(run_id=self._name)
        try:
            json_format.ParseDict(self._spec, run.spec)
        except json_format.ParseError as error:
            raise InvalidArgument.at("spec", str(error)) from error
        return run


def _check_limits(spec: controller_v1.RunSpec) -> None:
    """InvalidArgument with every field that the contract requires or limits: the rules that the controller checks."""
    wrong = [replace(each, field=f"spec.{_as_written(each.field)}") for each in violations(spec)]
    if wrong:
        raise InvalidArgument("; ".join(f"{each.field}: {each.description}" for each in wrong), violations=wrong)


def _as_written(field: str) -> str:
    """The path of a field with its names as in a run file: `policy.samplesPerPrompt`."""
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), field)


def _checked(value: Any, message: Descriptor, where: str) -> dict[str, Any]:
    """A mapping for a message, keys as in the contract. InvalidArgument names an unknown key or a wrong value."""
    if not isinstance(value, dict):
        raise InvalidArgument.at(where, f"must be a mapping, not {_shown(value)}")
    result: dict[str, Any] = {}
    for key, item in value.items():
        field = _field(message, key, f"{where}.{key}")
        if field.name in result:
            raise InvalidArgument.at(f"{where}.{key}", f"is given twice, as `{field.name}` and `{field.json_name}`")
        result[field.name] = _value(item, field, f"{where}.{key}")
    _one_of(result, message, where)
    return result


def _value(item: Any, field: FieldDescriptor, where: str) -> Any:
    """A field's value, checked."""
    if not field.is_repeated:
        return _element(item, field, where)
    if _is_map(field):
        if not isinstance(item, dict):
            raise InvalidArgument.at(where, f"must be a mapping, not {_shown(item)}")
        return {key: _entry(value, field, f"{where}.{key}") for key, value in item.items()}
    if not isinstance(item, list):
        raise InvalidArgument.at(where, f"must be a list, not {_shown(item)}")
    return [_element(element, field, f"{where}[{index}]") for index, element in enumerate(item)]


def _element(item: Any, field: FieldDescriptor, where: str) -> Any:
    if item is None:
        raise InvalidArgument.at(where, "has no value; omit the key to use the default")
    if field.message_type is None:
        _scalar(item, field, where)
        return item
    if field.message_type.full_name in _FREE:
        if not isinstance(item, dict):
            raise InvalidArgument.at(where, f"must be a mapping, not {_shown(item)}")
        return item
    return _checked(item, field.message_type, where)


def _entry(item: Any, field: FieldDescriptor, where: str) -> Any:
    """A value of a map, checked."""
    assert field.message_type is not None  # a map holds messages of a key and a value
    return _element(item, field.message_type.fields_by_name["value"], where)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _scalar(item: Any, field: FieldDescriptor, where: str) -> None:
    """Checks a value by letting protobuf parse it."""
    owner = field.containing_type
    assert owner is not None  # every field of a message has one; extensions do not occur here
    message = GetMessageClass(owner)()
    try:
        json_format.ParseDict({field.name: [item] if field.is_repeated else item}, message)
    except json_format.ParseError as error:
        kind = _KINDS.get(field.cpp_type, "another value")
        raise InvalidArgument.at(where, f"must be {kind}, not {_shown(item)}") from error


_KINDS = {
    FieldDescriptor.CPPTYPE_STRING: "a text",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_INT32: "a whole number",
    FieldDescriptor.CPPTYPE_INT64: "a whole number",
    FieldDescriptor.CPPTYPE_UINT64: "a whole number of at least 0",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
}


def _one_of(given: dict[str, Any], message: Descriptor, where: str) -> None:
    for group in message.oneofs:
        names = [field.name for field in group.fields if field.name in given]
        if len(names) > 1:
            raise InvalidArgument.at(where, f"only one of {', '.join(names)} may be given")


def _assign(tree: dict[str, Any], message: Descriptor, parts: Sequence[str], value: Any, where: str) -> None:
    """Sets the field at a path; list elements are named by index. Paths are relative to the working directory."""
    field = _field(message, parts[0], f"{where}.{parts[0]}")
    where, rest = f"{where}.{parts[0]}", list(parts[1:])
    for other in field.containing_oneof.fields if field.containing_oneof else ():
        if other is not field:
            tree.pop(other.name, None)
    if not rest:
        tree[field.name] = _resolved_field(_value(value, field, where), field, (Path.cwd(), Path.cwd()))
        return
    if _is_map(field):
        key = ".".join(rest)  # keys have dots: nvidia.com/gpu
        tree.setdefault(field.name, {})[key] = _entry(value, field, f"{where}.{key}")
        return
    if field.is_repeated:
        items = tree.get(field.name, [])
        if not rest[0].isdigit() or int(rest[0]) >= len(items):
            raise InvalidArgument.at(f"{where}.{rest[0]}", f"is not one of the {len(items)} elements, counted from 0")
        index = int(rest.pop(0))
        where = f"{where}[{index}]"
        if not rest:
            items[index] = _resolved_element(_element(value, field, where), field, (Path.cwd(), Path.cwd()))
            return
        inner = items[index]
    else:
        inner = tree.setdefault(field.name, {}) if field.message_type else {}
    if field.message_type is None:
        raise InvalidArgument.at(f"{where}.{rest[0]}", f"{field.name} has no fields")
    if field.message_type.full_name in _FREE:
        for part in rest[:-1]:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise InvalidArgument.at(f"{where}.{part}", "is not a mapping")
        inner[rest[-1]] = value
        return
    _assign(inner, field.message_type, rest, value, where)


def _field(message: Descriptor, key: Any, where: str) -> FieldDescriptor:
    """The field that a key names, in camelCase or snake_case."""
    for field in message.fields:
        if key in (field.name, field.json_name):
            return field
    names = [field.json_name if "_" not in str(key) else field.name for field in message.fields]
    raise InvalidArgument.at(where, _unknown(key, names))


def _only(mapping: dict[str, Any], names: Sequence[str], where: str) -> None:
    for key in mapping:
        if key not in names:
            raise InvalidArgument.at(f"{where}{key}", _unknown(key, names))


def _unknown(key: Any, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(key), names, 1)
    return "unknown key; " + (f"did you mean `{close[0]}`?" if close else f"available: {', '.join(names)}")


# The base folders of data files, and of models and scorers.
_Bases = tuple[Path, Path]


def _resolved(tree: dict[str, Any], message: Descriptor, bases: _Bases) -> dict[str, Any]:
    fields = message.fields_by_name
    return {name: _resolved_field(value, fields[name], bases) for name, value in tree.items()}


def _resolved_field(value: Any, field: FieldDescriptor, bases: _Bases) -> Any:
    if _is_map(field):
        return value
    if field.is_repeated:
        return [_resolved_element(element, field, bases) for element in value]
    return _resolved_element(value, field, bases)


def _resolved_element(value: Any, field: FieldDescriptor, bases: _Bases) -> Any:
    if field.message_type is not None:
        free = field.message_type.full_name in _FREE
        return value if free else _resolved(value, field.message_type, bases)
    if field.full_name in _DATA:
        return _absolute(value, bases[0])
    if field.full_name in _MODELS:
        return value if value.startswith("models/") else _absolute(value, bases[1])
    if field.full_name in _SCORERS:
        kind, _, rest = value.partition(":")
        file, _, function = rest.rpartition(":")
        if kind == "python" and file.endswith(".py"):
            return f"python:{_absolute(file, bases[1])}:{function}"
    return value


def _absolute(path: str, base: Path) -> str:
    """An absolute path without `..`; URIs and empty paths are unchanged."""
    return path if not path or "://" in path else os.path.abspath(base / Path(path).expanduser())


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else repr(value)
