"""Every RPC of every service, with its messages and errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor

from accord.artifact import v1 as artifact_v1
from accord.controller import v1 as controller_v1
from accord.preference import v1 as preference_v1
from accord.reasons import REASONS
from accord.reward import v1 as reward_v1
from accord.rollout import v1 as rollout_v1
from accord.rules.check import output_only, required
from accord.trainer import v1 as trainer_v1
from accord.usage import v1 as usage_v1
from proto_comments import COMMON, comments, errors, without_errors
from reference.contract import PROTOBUF, limits_of, linked_pages, type_of
from reference.markdown import cell, code, generated, slug, table

FILES = (
    controller_v1.RUN_SERVICE,
    rollout_v1.ROLLOUT_SERVICE,
    reward_v1.REWARD_SERVICE,
    preference_v1.PREFERENCE_SERVICE,
    preference_v1.ANNOTATOR_SERVICE,
    trainer_v1.TRAINER_SERVICE,
    artifact_v1.ARTIFACT_SERVICE,
    usage_v1.USAGE_SERVICE,
)
HEADER = ("field", "type", "limits", "meaning")
FORMER = re.compile(r"former name of `(\w+)`")
INTRODUCTION = """# RPCs

The calls of all services, from the contracts in `protos/`, with the field names of the contracts.
See [Upgrading](../upgrading.md) for how contracts change.

Each call lists the errors that it can return: the status code with the reasons of [errors](errors.md). In addition,
every call can return these common errors:

"""


def page() -> str:
    """docs/reference/rpcs.md. SystemExit if an RPC lists an error that the catalogue of reasons lacks."""
    services = [service for file in FILES for service in file.services_by_name.values()]
    parts = [INTRODUCTION + "\n".join(_errors(COMMON.items())) + "\n"]
    for service in services:
        parts += [f"## {service.name}\n", f"{code(service.full_name)}\n", _paragraphs(comments()[service.full_name])]
        parts.append(
            table(("call", "kind"), ((_link(f"{service.name}.{one.name}"), _kind(one)) for one in service.methods))
        )
        for method in service.methods:
            parts += _method(method)
    parts.append("## Messages\n")
    for message in shared(services):
        parts += [f"### {_title(message)}\n", _paragraphs(comments().get(message.full_name, "")), *_fields(message)]
    parts.append("## Enums\n")
    for enum in enums(services):
        parts += [f"### {_title(enum)}\n", _paragraphs(comments().get(enum.full_name, ""))]
        rows = ((code(one.name), str(one.number), _meaning(f"{enum.full_name}.{one.name}")) for one in enum.values)
        parts.append(table(("value", "number", "meaning"), rows))
    return generated("\n".join(part for part in parts if part))


def shared(services: Iterable[ServiceDescriptor]) -> list[Descriptor]:
    """The messages inside requests and responses, sorted. Requests and responses themselves are shown with their
    RPCs."""
    found: dict[str, Descriptor] = {}
    outer = {
        one.full_name for service in services for rpc in service.methods for one in (rpc.input_type, rpc.output_type)
    }
    for message in _all(services):
        if message.full_name not in outer:
            found[message.full_name] = message
    return [found[name] for name in sorted(found)]


def enums(services: Iterable[ServiceDescriptor]) -> list[EnumDescriptor]:
    """The enums of all fields, sorted."""
    found = {
        field.enum_type.full_name: field.enum_type
        for message in _all(services)
        for field in message.fields
        if field.enum_type is not None
    }
    return [found[name] for name in sorted(found)]


def _all(services: Iterable[ServiceDescriptor]) -> list[Descriptor]:
    seen: dict[str, Descriptor] = {}
    for service in services:
        for method in service.methods:
            _collect(method.input_type, seen)
            _collect(method.output_type, seen)
    return list(seen.values())


def _collect(message: Descriptor, seen: dict[str, Descriptor]) -> None:
    if message.full_name in seen or not message.full_name.startswith("accord."):
        return
    if not message.GetOptions().map_entry:
        seen[message.full_name] = message
    for field in message.fields:
        if field.message_type is not None:
            _collect(field.message_type, seen)


def _method(method: MethodDescriptor) -> Iterator[str]:
    comment = comments()[method.full_name]
    assert method.containing_service is not None
    yield f"### {method.containing_service.name}.{method.name}\n"
    yield f"{code(f'{method.containing_service.full_name}/{method.name}')}, {_kind(method)}\n"
    yield _paragraphs(without_errors(comment))
    for title, message in (("Request", method.input_type), ("Response", method.output_type)):
        fields = list(_fields(message))
        yield f"**{title}**, {code(message.name)}{':' if fields else ': no fields.'}\n"
        yield from fields
    listed = list(_errors(errors(comment).items()))
    yield "**Errors**" + (":\n\n" + "\n".join(listed) if listed else ": only the common ones.") + "\n"


def _kind(method: MethodDescriptor) -> str:
    kinds = {
        (False, False): "one request, one response",
        (False, True): "one request, a stream of responses",
        (True, False): "a stream of requests, one response",
        (True, True): "a stream of requests, a stream of responses",
    }
    return kinds[method.client_streaming, method.server_streaming]


def _errors(listed: Iterable[tuple[str, tuple[str, ...]]]) -> Iterator[str]:
    for status, reasons in listed:
        if missing := set(reasons) - REASONS.keys():
            raise SystemExit(
                f"clients/python/accord/reasons lacks {', '.join(sorted(missing))}, which the contracts list"
            )
        yield f"- {status}: {', '.join(f'[{code(reason)}](errors.md#{reason.lower()})' for reason in reasons)}"


def _fields(message: Descriptor) -> Iterator[str]:
    rows = [_row(field) for field in message.fields]
    if not rows:
        return
    if any(row[2] for row in rows):
        yield table(HEADER, rows)
    else:
        yield table((*HEADER[:2], HEADER[3]), ((name, kind, meaning) for name, kind, _, meaning in rows))
    for group in message.oneofs:
        if len(group.fields) > 1:  # a field that is `optional` makes a oneof too
            yield f"At most one of {', '.join(code(field.name) for field in group.fields)} is set.\n"


def _row(field: FieldDescriptor) -> tuple[str, str, str, str]:
    meaning = _meaning(field.full_name)
    notes = ["required"] if required(field) else ["output only"] if output_only(field) else []
    if field.GetOptions().deprecated:
        found = FORMER.search(comments().get(field.full_name, ""))
        if found is None:
            raise SystemExit(f"{field.full_name} is deprecated; its comment must say `The former name of ...`")
        notes.append(f"deprecated: use {code(found[1])}")
    kind = "<br>".join([type_of(field, _link_to, PROTOBUF), *(f"*{note}*" for note in notes)])
    return code(field.name), kind, cell(limits_of(field)), meaning


def _meaning(name: str) -> str:
    return cell(linked_pages(comments().get(name, "").replace("\n\n", " ")))


def _paragraphs(comment: str) -> str:
    return linked_pages(comment) + "\n" if comment else ""


def _link_to(one: Descriptor | EnumDescriptor) -> str:
    if not one.full_name.startswith("accord."):
        return code(one.full_name)
    return _link(_title(one))


def _title(one: Descriptor | EnumDescriptor) -> str:
    """A name without the prefix that all names share: `controller.v1.Run`."""
    return one.full_name.removeprefix("accord.")


def _link(heading: str) -> str:
    return f"[{heading}](#{slug(heading)})"
