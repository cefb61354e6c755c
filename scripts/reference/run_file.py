"""Every field of a run file: path, type, default, limits, meaning, example."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from accord.controller import v1 as controller_v1
from accord.rules.check import required
from accord_controller.spec.defaults import resolve
from proto_comments import comments
from reference.contract import limits_of, linked_pages, map_entry, type_of
from reference.markdown import anchor, cell, code, generated, sentence, slug, table
from reference.run_file_examples import EXAMPLES

HEADER = ("field", "default, limits", "meaning, example")
STRUCT = "google.protobuf.Struct"
ROOT = controller_v1.RunSpec.DESCRIPTOR
DEFAULT = re.compile(r"\s*Default(?:, when [^:]*)?: (?P<value>.+?)\.(?=\s|$)")
# The services that read these fields, not the controller, fill in their defaults.
ELSEWHERE = ("accord.reward.v1.", "accord.preference.v1.", "accord.controller.v1.Toleration.")
SPEC = "What the run should do. `accord runs get --format json` shows the spec with all defaults filled in."
INTRODUCTION = """# Run file

A run file is YAML. `accord run FILE` and the SDK's `accord.load_run` read it; `--set` overrides a field by its path,
for example `--set policy.steps=50`. All fields except `apiVersion`, `kind` and `metadata` are under `spec`, where the
paths below begin. Names may also be written in snake_case, as in the contracts and in the field violations of errors.
An unknown field is an error.

Data files are relative to the run file; models and `python:` scorers are relative to the working folder.

In Kubernetes the same document is a resource of kind `Run`, with one more field: `spec.suspend: true` pauses the run at
its next durable point, and `false` continues it.
"""


@dataclass(frozen=True)
class Section:
    """A message of the run file and the paths at which it occurs, `feedback.simulated.scorers[]`."""

    message: Descriptor
    paths: list[tuple[FieldDescriptor, ...]]


def page() -> str:
    """docs/reference/run-file.md. SystemExit if examples or documented defaults differ from the contract."""
    found = sections()
    owners = {section.message.full_name: written(section.paths[0]) for section in found}
    parts = [INTRODUCTION, "## Head\n", table(HEADER, _head())]
    unused = set(EXAMPLES) - {"Run.run_id"}
    for section in found:
        parts.append(f"## {written(section.paths[0])}\n" if section.paths[0] else "## spec\n")
        parts.append(_about(section))
        parts.append(table(HEADER, (_row(section, field, owners) for field in section.message.fields)))
        unused -= {_key(field) for field in section.message.fields}
    if unused:
        raise SystemExit(f"scripts/reference/run_file_examples.py has no such fields: {', '.join(sorted(unused))}")
    return generated("\n".join(parts))


def sections() -> list[Section]:
    """The spec and every message below it, each once, in the order of a run file."""
    found: dict[str, Section] = {}
    _collect((), ROOT, found)
    return list(found.values())


def written(path: tuple[FieldDescriptor, ...]) -> str:
    """A path as in YAML: `feedback.people.criteria[]`."""
    return ".".join(f"{field.json_name}[]" if field.is_repeated else field.json_name for field in path)


def section_of(field: FieldDescriptor) -> Descriptor | None:
    """The message of a field, if it has its own section."""
    message = field.message_type
    return message if message is not None and message.full_name != STRUCT and map_entry(field) is None else None


def _collect(path: tuple[FieldDescriptor, ...], message: Descriptor, found: dict[str, Section]) -> None:
    if message.full_name in found:
        found[message.full_name].paths.append(path)
    else:
        found[message.full_name] = Section(message, [path])
    for field in message.fields:
        if (inner := section_of(field)) is not None:
            _collect((*path, field), inner, found)


def _head() -> Iterator[tuple[str, ...]]:
    name = controller_v1.Run.DESCRIPTOR.fields_by_name["run_id"]
    yield _cells("apiVersion", "text", ("required", ""), "The version of the format.", "accord.dev/v1")
    yield _cells("kind", "text", ("required", ""), "What the document describes.", "Run")
    meaning = "The name of the run, chosen by the user."
    yield _cells("metadata.name", "text", ("required", limits_of(name)), meaning, EXAMPLES["Run.run_id"])


def _about(section: Section) -> str:
    lines = [SPEC if section.message is ROOT else _plain(comments()[section.message.full_name])]
    if len(section.paths) > 1:
        lines.append(f"Also at {', '.join(code(written(path)) for path in section.paths[1:])}, with the same fields.")
    for group in section.message.oneofs:
        if len(group.fields) > 1:  # a field that is `optional` makes a oneof too
            lines.append(f"Set exactly one of {', '.join(code(field.json_name) for field in group.fields)}.")
    return "\n\n".join(lines) + "\n"


def _row(section: Section, field: FieldDescriptor, owners: Mapping[str, str]) -> tuple[str, ...]:
    path = written((*section.paths[0], field)).removesuffix("[]")
    comment = comments()[field.full_name]
    meaning = DEFAULT.sub("", comment)

    def named(one: Descriptor | EnumDescriptor) -> str:
        if one.full_name == STRUCT:
            return "mapping"
        return f"[section](#{slug(owners[one.full_name])})"

    if section_of(field) is None and _key(field) not in EXAMPLES:
        raise SystemExit(f"scripts/reference/run_file_examples.py lacks {_key(field)}")
    return _cells(
        path,
        type_of(field, named),
        (_default(section.paths[0], field, comment), limits_of(field)),
        _plain(meaning),
        EXAMPLES.get(_key(field), ""),
    )


def _cells(path: str, kind: str, values: tuple[str, str], meaning: str, example: str) -> tuple[str, ...]:
    """A table row. `values`: the default and the limits."""
    shown = [cell(sentence(meaning)), *([f"*Example:* {code(example)}"] if example else [])]
    return (
        f"{anchor(path.replace('[]', ''))}{code(path)}<br>{cell(kind)}",
        "<br>".join(cell(value) for value in values if value),
        "<br>".join(shown),
    )


def _default(path: tuple[FieldDescriptor, ...], field: FieldDescriptor, comment: str) -> str:
    """The default: the resolved value, which must match the comment; otherwise the comment's text."""
    if required(field):
        return "required"
    found = DEFAULT.search(comment)
    said = found["value"] if found else ""
    value = literal(field, resolved(path, field))
    first = re.match(r"`[^`]*`|-?[\d.,]*\d|true\b|false\b", said)
    if first is None or found is None or " times " in said:
        return _plain(said) or code(value)
    if first[0].strip("`").replace(",", "") != value and not field.full_name.startswith(ELSEWHERE):
        raise SystemExit(f"{field.full_name}: the comment says {first[0]}, the default is {value or 'not set'}")
    return code(first[0].strip("`")) + _plain(said[first.end() :])


def resolved(path: tuple[FieldDescriptor, ...], field: FieldDescriptor) -> Any:
    """The value of a field after resolving a spec in which only the messages on its path are set; None if it is not
    set."""
    spec = controller_v1.RunSpec()
    _at(spec, path)
    inner = _at(resolve(spec), path)
    return None if field.has_presence and not inner.HasField(field.name) else getattr(inner, field.name)


def _at(message: Any, path: tuple[FieldDescriptor, ...]) -> Any:
    """The message at a path; missing messages are created."""
    for field in path:
        message = getattr(message, field.name)
        if field.is_repeated:
            message = message[0] if message else message.add()
        else:
            message.SetInParent()
    return message


def literal(field: FieldDescriptor, value: Any) -> str:
    """A value as in YAML; empty for an empty text or an unset field."""
    if value is None or isinstance(value, Message) or field.is_repeated:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(comment: str) -> str:
    """A comment adapted to a run file: names in camelCase, and links to other pages."""
    text = linked_pages(comment.replace("\n\n", " "))
    text = re.sub(r"\bRunSpec\.(\w+)", r"`\1`", text)
    return re.sub(r"`([a-z_]+)`", lambda found: f"`{_NAMES.get(found[1], found[1])}`", text)


def _key(field: FieldDescriptor) -> str:
    assert field.containing_type is not None
    return f"{field.containing_type.name}.{field.name}"


_NAMES = {
    field.name: field.json_name for section in sections() for field in section.message.fields if "_" in field.name
}
