"""The comments of the contracts by full name, and the errors that they list for each RPC."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from google.protobuf import descriptor_pb2

from generate import descriptors

# The last paragraph of an RPC's comment: `Errors: NOT_FOUND (RUN_NOT_FOUND), ABORTED (ETAG_MISMATCH).` lists status
# codes with the reasons of ErrorInfo. Every RPC can also return COMMON errors; an RPC that has only those has
# NO_ERRORS.
ERRORS = "Errors: "
NO_ERRORS = "Errors: common errors only."
COMMON = {
    "INVALID_ARGUMENT": ("INVALID_ARGUMENT", "REQUIRED_FIELD_MISSING"),
    "DEADLINE_EXCEEDED": ("DEADLINE_EXCEEDED",),
    "RESOURCE_EXHAUSTED": ("DISK_FULL",),
    "ABORTED": ("DATABASE_CONFLICT",),
    "UNAVAILABLE": ("DRAINING",),
    "INTERNAL": ("UNEXPECTED",),
}
_CODE = re.compile(r"([A-Z_]+) \(([A-Z_]+(?:, [A-Z_]+)*)\)")


@cache
def comments() -> dict[str, str]:
    """The leading comment of every service, RPC, message, field, oneof, enum and enum value that has one. Each
    paragraph is one line, and an empty line separates paragraphs."""
    found: dict[str, str] = {}
    for file in descriptors().file:
        if not file.package.startswith("accord."):
            continue
        texts = {tuple(where.path): _joined(where.leading_comments) for where in file.source_code_info.location}
        found |= {f"{file.package}.{name}": texts[path] for name, path in _named(file) if texts.get(path)}
    return found


def errors(comment: str) -> dict[str, tuple[str, ...]]:
    """The reasons that the comment of an RPC lists, by status code. ValueError if its last paragraph has no such
    list."""
    last = comment.rpartition("\n\n")[2]
    if last == NO_ERRORS:
        return {}
    listed = _CODE.findall(last)
    if not listed or last != f"{ERRORS}{', '.join(f'{code} ({reasons})' for code, reasons in listed)}.":
        raise ValueError(f"not a list of errors: {last!r}")
    return {code: tuple(reasons.split(", ")) for code, reasons in listed}


def without_errors(comment: str) -> str:
    """The comment of an RPC without its list of errors."""
    return comment.rpartition("\n\n")[0]


def _joined(text: str) -> str:
    paragraphs = re.split(r"\n\s*\n", text.strip("\n"))
    return "\n\n".join(" ".join(line.strip() for line in paragraph.strip().splitlines()) for paragraph in paragraphs)


def _named(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names below the package, with their paths in the file's descriptor."""
    for number, message in enumerate(file.message_type):
        yield message.name, (4, number)
        yield from ((f"{message.name}.{one.name}", (4, number, 2, index)) for index, one in enumerate(message.field))
        yield from (
            (f"{message.name}.{one.name}", (4, number, 8, index)) for index, one in enumerate(message.oneof_decl)
        )
    for number, enum in enumerate(file.enum_type):
        yield enum.name, (5, number)
        yield from ((f"{enum.name}.{value.name}", (5, number, 2, index)) for index, value in enumerate(enum.value))
    for number, service in enumerate(file.service):
        yield service.name, (6, number)
        yield from ((f"{service.name}.{rpc.name}", (6, number, 2, index)) for index, rpc in enumerate(service.method))
