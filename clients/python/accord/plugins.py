"""Implementations found by name through entry points: adding one changes no file of this repository.

The groups: `accord.engines`, `accord.scorers`, `accord.algorithms`, `accord.metrics_writers`, `accord.transports`,
`accord.formats`, `accord.launchers`, `accord.stores`, `accord.dialects`.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from accord.errors import FailedPrecondition, InvalidArgument


def names(group: str) -> list[str]:
    """The names of a group's plug-ins, sorted; listing them imports none."""
    return sorted(entry_points(group=group).names)


def load(group: str, name: str, field: str = "name") -> Any:
    """The object that entry point `name` of `group` refers to.

    Errors: InvalidArgument at `field`, reason UNKNOWN_<KIND>, which lists the available names; FailedPrecondition,
    PLUGIN_BROKEN, if the plug-in is installed but cannot be imported.
    """
    found = entry_points(group=group, name=name)
    if not found:
        known = ", ".join(names(group)) or "none"
        kind = group.removeprefix("accord.").removesuffix("s")
        raise InvalidArgument.at(
            field, f"unknown {kind} {name!r}; available: {known}", reason=f"UNKNOWN_{kind.upper()}"
        )
    try:
        return next(iter(found)).load()
    except (ImportError, AttributeError) as error:
        raise FailedPrecondition(
            f"{name} cannot be imported: {error}. Is the extra that it needs installed?", reason="PLUGIN_BROKEN"
        ) from error
