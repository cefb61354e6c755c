"""Every command of `accord`, with its description, arguments and options."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any

import typer.main

from accord.cli.main import app
from reference.markdown import cell, code, generated, sentence, table
from reference.models import type_of

HEADER = ("argument or option", "type", "default", "meaning")
INTRODUCTION = """# Command line

`accord --help` and `accord COMMAND --help` print the same. Global options go before the command. Results go
to standard output, everything else to standard error. An error is one line with its reason in brackets;
[errors](errors.md) has the reasons.
"""


def page() -> str:
    """docs/reference/cli.md."""
    return generated("\n".join([INTRODUCTION, *_parts(typer.main.get_command(app), "accord")]))


def _parts(command: Any, path: str) -> Iterator[str]:
    yield f"## {path}\n"
    yield sentence_lines(command.help or "") + "\n"
    rows = [_row(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
    if rows:
        yield table(HEADER, rows)
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        if not inner.hidden:
            yield from _parts(inner, f"{path} {name}")


def sentence_lines(text: str) -> str:
    """Paragraphs of a help text."""
    return "\n\n".join(sentence(part) for part in text.split("\n\n"))


def _row(parameter: Any) -> tuple[str, ...]:
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        names = parameter.metavar or parameter.name.upper()
    kind = parameter.type_descriptor.annotation
    named = "flag" if getattr(parameter, "is_flag", False) else type_of(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        named = "one of " + ", ".join(code(each.value) for each in kind)
    default = parameter.default
    if default is None or callable(default) or default in (False, (), []):
        default = ""
    shown = "required" if parameter.required else code(getattr(default, "value", default))
    return code(names), cell(named), shown, cell(sentence(parameter.help or ""))
