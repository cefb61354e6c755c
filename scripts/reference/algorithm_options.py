"""Every option of every algorithm: type, default, limits, meaning."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from accord import plugins
from accord_trainer.algorithm import AlgorithmOptions
from reference.markdown import cell, code, generated, lines, sentence, table
from reference.models import default_of, limits_of, own_fields, type_of

HEADER = ("option", "default, limits", "meaning")
INTRODUCTION = """# Options of algorithms

In a run file, set them under `policy.options` and `rewardModel.options`; in the SDK they are a training's `options`.
An unknown option is refused, and the error lists the known ones. [Algorithms](../algorithms.md) has the equations and
the metrics.
"""


def page() -> str:
    """docs/reference/algorithm-options.md."""
    parts = [
        INTRODUCTION,
        "## Every algorithm that uses gradients\n",
        table(HEADER, _rows(AlgorithmOptions, BaseModel)),
    ]
    for name in plugins.names("accord.algorithms"):
        options: type[BaseModel] = plugins.load("accord.algorithms", name).options_type
        gradient = issubclass(options, AlgorithmOptions)
        parts.append(f"## {name}\n")
        if gradient:
            parts.append("In addition to the options of every algorithm, or with a different default:\n")
        rows = list(_rows(options, AlgorithmOptions if gradient else BaseModel))
        parts.append(table(HEADER, rows) if rows else "No additional options.\n")
    return generated("\n".join(parts))


def _rows(options: type[BaseModel], common: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    for name, field in own_fields(options, common).items():
        yield (
            lines(code(name), cell(type_of(field.annotation))),
            lines(code(default_of(field)), cell(limits_of(field))),
            cell(sentence(field.description or "")),
        )
